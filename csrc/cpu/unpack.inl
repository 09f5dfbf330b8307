// Panels -> unsigned codes and scales of one activation block (kBlock or 32 values of k), ready for the tile kernels.

struct Unpacked {
  alignas(64) uint8_t codes[kBlock / 4][64];   // [k / 4][lane][4]
  alignas(64) int32_t scale[kBlock / 16][16];  // integer scales of sub-blocks (Q4_K, Q5_K, Q6_K)
  alignas(64) float d[kBlock / 32][16];        // float scales: of the block, or of each 32
  alignas(64) float m[kBlock / 32][16];        // float offsets likewise
  alignas(64) uint8_t mins[2][64];             // integer mins (Q4_K, Q5_K), lines of 4 sub-blocks
};

// A panel's header and the bytes of its blocks.
struct PanelView {
  const uint8_t* panel;
  const uint8_t* blocks;
  int64_t header_row;  // blocks per header array
  inline const uint16_t* header(int which, int64_t block) const {
    return reinterpret_cast<const uint16_t*>(panel) + (which * header_row + block) * 16;
  }
};

// Lines of two nibbles each: the low halves go to line `low` + i, the high halves to line `high` + i.
inline void unpack_nibbles(const uint8_t* from, int lines, uint8_t (*low)[64], uint8_t (*high)[64]) {
  for (int i = 0; i < lines; ++i) {
    const u8x64 v = load64(from + i * 64);
    store64(low[i], low_nibbles(v));
    store64(high[i], high_nibbles(v));
  }
}

inline void unpack_scales_and_mins(const uint8_t* p, Unpacked& u) {
  for (int s = 0; s < 8; ++s) store(u.scale[s], scale_lanes(load_bytes(p + s * 16)));
  store64(u.mins[0], load64(p + 128));
  store64(u.mins[1], load64(p + 192));
  store(u.d[0], load_half(reinterpret_cast<const uint16_t*>(p + 256)));
  store(u.m[0], load_half(reinterpret_cast<const uint16_t*>(p + 288)));
}

struct Q4_K {
  static constexpr PanelType type = PanelType::Q4_K;
  static inline void unpack(const PanelView& v, int64_t block, int, Unpacked& u) {
    const uint8_t* p = v.blocks + block * panel_layout(type).block_bytes;
    for (int pair = 0; pair < 4; ++pair)
      unpack_nibbles(p + pair * 8 * 64, 8, u.codes + pair * 16, u.codes + pair * 16 + 8);
    unpack_scales_and_mins(p + 32 * 64, u);
  }
};

struct Q5_K {
  static constexpr PanelType type = PanelType::Q5_K;
  template <int Pair>
  static inline void unpack_pair(const uint8_t* p, Unpacked& u) {
    for (int g = 0; g < 8; ++g) {
      const u8x64 v = load64(p + (Pair * 8 + g) * 64), high = load64(p + (32 + g) * 64);
      store64(u.codes[Pair * 16 + g], or_high_bits<2 * Pair, 1>(low_nibbles(v), high));
      store64(u.codes[Pair * 16 + 8 + g], or_high_bits<2 * Pair + 1, 1>(high_nibbles(v), high));
    }
  }
  static inline void unpack(const PanelView& v, int64_t block, int, Unpacked& u) {
    const uint8_t* p = v.blocks + block * panel_layout(type).block_bytes;
    unpack_pair<0>(p, u);
    unpack_pair<1>(p, u);
    unpack_pair<2>(p, u);
    unpack_pair<3>(p, u);
    unpack_scales_and_mins(p + 40 * 64, u);
  }
};

struct Q6_K {
  static constexpr PanelType type = PanelType::Q6_K;
  static inline void unpack(const PanelView& v, int64_t block, int, Unpacked& u) {
    const uint8_t* p = v.blocks + block * panel_layout(type).block_bytes;
    for (int h = 0; h < 2; ++h)
      for (int g = 0; g < 8; ++g) {
        const u8x64 even = load64(p + (h * 16 + g) * 64), odd = load64(p + (h * 16 + 8 + g) * 64);
        const u8x64 high = load64(p + (32 + h * 8 + g) * 64);
        store64(u.codes[h * 32 + g], or_high_bits<0, 2>(low_nibbles(even), high));
        store64(u.codes[h * 32 + 8 + g], or_high_bits<2, 2>(low_nibbles(odd), high));
        store64(u.codes[h * 32 + 16 + g], or_high_bits<4, 2>(high_nibbles(even), high));
        store64(u.codes[h * 32 + 24 + g], or_high_bits<6, 2>(high_nibbles(odd), high));
      }
    for (int s = 0; s < 16; ++s)
      store(u.scale[s], scale_lanes(load_bytes(reinterpret_cast<const int8_t*>(p) + 48 * 64 + s * 16)));
    store(u.d[0], load_half(v.header(0, block)));
  }
};

// The types with blocks of 32 values: all blocks that share an activation scale.
template <class Block>
inline void unpack_blocks(const PanelView& v, int64_t block, int values, Unpacked& u) {
  const int n = values / 32;
  for (int b = 0; b < n; ++b) {
    const int64_t index = block * n + b;
    Block::codes(v.blocks + index * panel_layout(Block::type).block_bytes, u.codes + b * 8);
    store(u.d[b], load_half(v.header(0, index)));
    if constexpr (panel_layout(Block::type).header_floats == 2) store(u.m[b], load_half(v.header(1, index)));
  }
}

template <PanelType T>
struct FourBits {
  static constexpr PanelType type = T;
  static inline void codes(const uint8_t* p, uint8_t (*to)[64]) { unpack_nibbles(p, 4, to, to + 4); }
  static inline void unpack(const PanelView& v, int64_t b, int n, Unpacked& u) { unpack_blocks<FourBits>(v, b, n, u); }
};

template <PanelType T>
struct FiveBits {
  static constexpr PanelType type = T;
  template <int G>
  static inline void group(const uint8_t* p, u8x64 high, uint8_t (*to)[64]) {
    const u8x64 v = load64(p + G * 64);
    store64(to[G], or_high_bits<G, 1>(low_nibbles(v), high));
    store64(to[4 + G], or_high_bits<4 + G, 1>(high_nibbles(v), high));
  }
  static inline void codes(const uint8_t* p, uint8_t (*to)[64]) {
    const u8x64 high = load64(p + 4 * 64);
    group<0>(p, high, to);
    group<1>(p, high, to);
    group<2>(p, high, to);
    group<3>(p, high, to);
  }
  static inline void unpack(const PanelView& v, int64_t b, int n, Unpacked& u) { unpack_blocks<FiveBits>(v, b, n, u); }
};

struct EightBits {
  static constexpr PanelType type = PanelType::Q8_0;
  static inline void codes(const uint8_t* p, uint8_t (*to)[64]) {
    for (int g = 0; g < 8; ++g) store64(to[g], load64(p + g * 64));
  }
  static inline void unpack(const PanelView& v, int64_t b, int n, Unpacked& u) { unpack_blocks<EightBits>(v, b, n, u); }
};
