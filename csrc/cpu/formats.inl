// How the kernels read quantized panels (layouts: panels.h): the lines of unsigned codes of each type, and the two ways
// a tile kernel gets them. FromPanels unpacks in registers, for few rows of x; FromScratch reads what unpack() has
// spread out once for many tiles.
#pragma once
#include "cpu/quantize.inl"
#include "quant/blocks.h"

namespace ke::cpu::KE_ISA {
namespace {

// How far ahead of its loads a product asks for its weights: further than the hardware's own prefetching looks.
constexpr int kAhead = 16384;

inline void prefetch(const uint8_t* p, int begin, int end) {
  for (int i = begin & -64; i < end; i += 64) __builtin_prefetch(p + kAhead + i);
}

// Panels that a tile of `cols` columns takes at once: as many as leave its sums in registers.
static constexpr int tile_panels(int cols) {
  int panels = kTilePanels;
  while (panels > 1 && panels * cols > kQuantSums) panels /= 2;
  return panels;
}

template <int N>
struct Const {};

// Sub-block first + I, where only I decides which bits of the bytes hold its codes.
template <int I>
struct SubBlock {
  int first;
  constexpr operator int() const { return first + I; }
};

constexpr bool kSignedDot = kEightBitOffset == 0;  // wants codes below 128 (ARM without int8 matrix products)

// Types with integer scales of sub-blocks; `scales`: where they are among the lines, `mins` likewise (0: none). The
// packing repeats `repeats` times over the block; line<L>(p, r) is line L of repetition r: four k of 16 rows.
// line_above, where a type has it: the same at bit above[sub-block of the repetition], where a mask is enough to get
// most codes, or all; their sums are shifted instead.
struct Q2_K {
  static constexpr PanelType type = PanelType::Q2_K;
  static constexpr int sub_blocks = 16, repeats = 2, offset = 0, scales = 16 * 64, mins = 16 * 64;
  using Scale = uint8_t;
  template <int L>
  static KE_INLINE u8x64 line(const uint8_t* p, int half) {
    return bits_moved<L / 8 * 2, 2, 0>(load64(p + (half * 8 + L % 8) * 64));
  }
  static constexpr int above[8] = {0, 0, 2, 2, 4, 4, kSignedDot ? 5 : 6, kSignedDot ? 5 : 6};
  template <int L>
  static KE_INLINE u8x64 line_above(const uint8_t* p, int half) {
    return bits_moved<L / 8 * 2, 2, above[L / 4]>(load64(p + (half * 8 + L % 8) * 64));
  }
};

struct Q3_K {
  static constexpr PanelType type = PanelType::Q3_K;
  // A four-product dot's sums begin at `starts`, which are made for codes that are 32 too high: eight times the codes
  // meet them, and cost nothing, as their bits have to move anyway. The float scale makes up for it, exactly.
#ifdef KE_QUANT_TILES
  static constexpr int shift = 0;
#else
  static constexpr int shift = 3;
#endif
  static constexpr int sub_blocks = 16, repeats = 2, offset = 4 << shift, scales = 24 * 64, mins = 0;
  using Scale = int8_t;
  static constexpr int above[8] = {0, 4, 0, 4, 0, 4, 3, kSignedDot ? 4 : 5};
  template <int L>
  static KE_INLINE u8x64 line(const uint8_t* p, int half) {
    return line_at<L, shift>(p, half);
  }
  template <int L>
  static KE_INLINE u8x64 line_above(const uint8_t* p, int half) {
    return line_at<L, above[L / 4]>(p, half);
  }

 private:
  // Codes at bits To .. To + 2.
  template <int L, int To>
  static KE_INLINE u8x64 line_at(const uint8_t* p, int half) {
    constexpr int s = L / 4, bit = s == 6 ? 3 : 7;
    const uint8_t* at = p + (half * 12 + L % 4) * 64;
    if constexpr (s < 6) return bits_moved<s % 2 * 4, 3, To>(load64(at + s / 2 * 256));
    const u8x64 low = or_high_bits<bit, 1, To + 1>(bits_moved<bit, 1, To>(load64(at)), load64(at + 256));
    return or_high_bits<bit, 1, To + 2>(low, load64(at + 512));
  }
};

struct Q4_K {
  static constexpr PanelType type = PanelType::Q4_K;
  static constexpr int sub_blocks = 8, repeats = 4, offset = 0, scales = 32 * 64, mins = 34 * 64;
  using Scale = uint8_t;
  template <int L>
  static KE_INLINE u8x64 line(const uint8_t* p, int pair) {
    const u8x64 v = load64(p + (pair * 8 + L % 8) * 64);
    return L < 8 ? low_nibbles(v) : high_nibbles(v);
  }
};

struct Q5_K {
  static constexpr PanelType type = PanelType::Q5_K;
  static constexpr int sub_blocks = 8, repeats = 1, offset = 0, scales = 40 * 64, mins = 42 * 64;
  using Scale = uint8_t;
  template <int L>
  static KE_INLINE u8x64 line(const uint8_t* p, int) {
    return or_high_bits<L / 8, 1>(Q4_K::line<L % 16>(p, L / 16), load64(p + (32 + L % 8) * 64));
  }
};

struct Q6_K {
  static constexpr PanelType type = PanelType::Q6_K;
  static constexpr int sub_blocks = 16, repeats = 2, offset = 32, scales = 48 * 64, mins = 0;
  using Scale = int8_t;
  template <int L>
  static KE_INLINE u8x64 line(const uint8_t* p, int half) {
    constexpr int run = L / 8, g = L % 8;
    const u8x64 v = load64(p + (half * 16 + run % 2 * 8 + g) * 64);
    return or_high_bits<2 * run, 2>(run < 2 ? low_nibbles(v) : high_nibbles(v), load64(p + (32 + half * 8 + g) * 64));
  }
};

// Types with blocks of 32 values; codes are `offset` too high.
template <PanelType T>
struct FourBits {
  static constexpr PanelType type = T;
  static constexpr int sub_blocks = 0, repeats = 1, offset = T == PanelType::Q4_0 ? 8 : 0;
  template <int L>
  static KE_INLINE u8x64 line(const uint8_t* p) {
    const u8x64 v = load64(p + L % 4 * 64);
    return L < 4 ? low_nibbles(v) : high_nibbles(v);
  }
};

template <PanelType T>
struct FiveBits {
  static constexpr PanelType type = T;
  static constexpr int sub_blocks = 0, repeats = 1, offset = T == PanelType::Q5_0 ? 16 : 0;
  template <int L>
  static KE_INLINE u8x64 line(const uint8_t* p) {
    return or_high_bits<L, 1>(FourBits<T>::template line<L>(p), load64(p + 4 * 64));
  }
};

struct EightBits {
  static constexpr PanelType type = PanelType::Q8_0;
  static constexpr int sub_blocks = 0, repeats = 1, offset = kEightBitOffset;
  template <int L>
  static KE_INLINE u8x64 line(const uint8_t* p) {
    return eight_bit_codes(load64(p + L * 64));
  }
};

// Eight sub-blocks without scales of their own.
struct EightBits256 {
  static constexpr PanelType type = PanelType::I8;
  static constexpr int sub_blocks = 8, repeats = 8, offset = kEightBitOffset;
  template <int L>
  static KE_INLINE u8x64 line(const uint8_t* p, int sub_block) {
    return eight_bit_codes(load64(p + (sub_block * 8 + L) * 64));
  }
};

// Codes of 4 bits that stand for the values of a table: those are the codes here, as a product wants them.
#ifdef KE_QUANT_TILES
constexpr int kTableOffset = 0;  // signed
#else
constexpr int kTableOffset = kEightBitOffset;
#endif

struct CodeTable {
  int8_t of[16];
  constexpr CodeTable() : of{KE_TABLE_VALUES} {
    for (int8_t& v : of) v = static_cast<int8_t>(v + kTableOffset);
  }
};
alignas(16) constexpr CodeTable kCodeTable;

struct IQ4_NL {
  static constexpr PanelType type = PanelType::IQ4_NL;
  static constexpr int sub_blocks = 0, repeats = 1, offset = kTableOffset;
  template <int L>
  static KE_INLINE u8x64 line(const uint8_t* p) {
    const u8x64 v = load64(p + L % 4 * 64);
    return looked_up(kCodeTable.of, L < 4 ? low_nibbles(v) : high_nibbles(v));
  }
};

struct IQ4_XS {
  static constexpr PanelType type = PanelType::IQ4_XS;
  static constexpr int sub_blocks = 8, repeats = 8, offset = kTableOffset, scales = 32 * 64, mins = 0;
  using Scale = int8_t;
  template <int L>
  static KE_INLINE u8x64 line(const uint8_t* p, int sub_block) {
    return IQ4_NL::line<L>(p + sub_block * 256);
  }
};

// The weights of P panels of a group, from panel `first` on, and one activation block (256 values of k: one block of a
// K type or eight of 32; or one of 32), as stored. In the members below p is the panel, counted from `first`, i the
// sub-block or block of 32, N the lines of a sub-block. With Ahead, what comes later is asked for on the way.
template <class Format, int P, bool Ahead>
struct FromPanels {
  static constexpr PanelLayout layout = panel_layout(Format::type);
  static constexpr int panel = layout.lines + layout.scales;  // bytes of a panel's block
  static constexpr int step = kPanels * panel;                // from block to block
  static constexpr bool above = requires { Format::above; };
  static constexpr bool nibble_scales = Format::type == PanelType::Q2_K;
  const uint8_t *lines, *scales, *later;

  FromPanels(const uint8_t* group, int64_t index, int values, int first) {
    const uint8_t* block = group + index * (values / layout.values) * static_cast<int64_t>(step);
    lines = block + first * layout.lines;
    scales = block + kPanels * layout.lines + first * layout.scales;
    later = block + first * panel;
  }

  template <int I, int N, int G>
  KE_INLINE u8x64 codes(int p, SubBlock<I> i, Const<N>, Const<G>) const {
    constexpr int each_time = Format::sub_blocks / Format::repeats;
    const int repeat = i.first / each_time;
    ask_ahead<I * N + G, each_time * N>(p, repeat);
    return Format::template line<I * N + G>(lines + p * layout.lines, repeat);
  }
  template <int I, int N, int G>
  KE_INLINE u8x64 codes_above(int p, SubBlock<I> i, Const<N>, Const<G>) const {
    constexpr int each_time = Format::sub_blocks / Format::repeats;
    const int repeat = i.first / each_time;
    ask_ahead<I * N + G, each_time * N>(p, repeat);
    return Format::template line_above<I * N + G>(lines + p * layout.lines, repeat);
  }
  template <int N, int G>
  KE_INLINE u8x64 codes(int p, int i, Const<N>, Const<G>) const {
    ask_ahead<G, N>(p, i * kPanels);
    return Format::template line<G>(lines + i * step + p * layout.lines);
  }
  // Minus what codes that are too high add to block i's products with column c. The loads of `starts` cost no
  // arithmetic.
  static KE_INLINE i32x16 start(const TileX& x, int c, int i, int values) {
    if constexpr (Format::offset == 0) return set1(0);
    if (Format::offset == 128 && values == kBlock) return set1(x.starts[c * kStarts + 16 + i]);
    return set1(-Format::offset * x.sum32[c * 8 + i]);
  }
  KE_INLINE i32x16 scale(int p, int i) const {
    const auto bytes = load_bytes(reinterpret_cast<const typename Format::Scale*>(scale_bytes(p, i)));
    if constexpr (nibble_scales) return scale_lanes(masked<15>(bytes));
    return scale_lanes(bytes);
  }
  // Where the codes of codes_above() are.
  template <int I>
  static constexpr int bit_of(SubBlock<I>) {
    return Format::above[I];
  }
  KE_INLINE const int8_t* scale_bytes(int p, int i) const {
    return reinterpret_cast<const int8_t*>(lines + p * layout.lines + Format::scales + i * 16);
  }
  KE_INLINE u8x64 mins(int p, int line) const {  // of four sub-blocks
    const u8x64 bytes = load64(lines + p * layout.lines + Format::mins + line * 64);
    if constexpr (Format::type == PanelType::Q2_K) return high_nibbles(bytes);
    return bytes;
  }
  KE_INLINE f32x16 d(int p, int i) const {
    if constexpr (Format::type == PanelType::I8) return load(reinterpret_cast<const float*>(halves(p, i)));
    if constexpr (Format::type == PanelType::Q3_K)
      return mul(load_half(halves(p, i)), set1(1.0f / (1 << Format::shift)));
    return load_half(halves(p, i));
  }
  KE_INLINE f32x16 m(int p, int i) const { return load_half(halves(p, i) + 16); }
  // Calls f(i) for every sub-block.
  template <class F>
  KE_INLINE void each_sub_block(F f) const {
    constexpr int n = Format::sub_blocks, each_time = n / Format::repeats;
    for (int base = 0; base < n; base += each_time)
      each<each_time>([&]<int i>() KE_LAMBDA {
        f(SubBlock<i>{base});
        asm volatile("" ::: "memory");  // or GCC keeps lines for the sub-block that shares them, on the stack
      });
  }

 private:
  // Before load I of the `Loads` of a repetition, or block of 32: asks for its share of the panel's bytes, so that
  // requests are spread evenly between the products. The last repetition may ask for some bytes twice.
  template <int I, int Loads>
  KE_INLINE void ask_ahead(int p, int repeat) const {
    if constexpr (Ahead) {
      constexpr int bytes_each = 64 * Format::repeats, count = (panel + bytes_each - 1) / bytes_each;
      constexpr int bytes = Format::sub_blocks ? 64 * count : panel;  // from repetition to repetition
      each<(I + 1) * count / Loads - I * count / Loads>([&]<int l>() KE_LAMBDA {
        __builtin_prefetch(later + kAhead + p * panel + repeat * bytes + (I * count / Loads + l) * 64);
      });
    }
  }
  KE_INLINE const uint16_t* halves(int p, int i) const {
    return reinterpret_cast<const uint16_t*>(scales + i * step + p * layout.scales);
  }
};

// The same spread out: one byte per code.
struct Unpacked {
  alignas(64) uint8_t codes[kBlock / 4][64];   // [k / 4][lane][4]
  alignas(64) int32_t scale[kBlock / 16][16];  // integer scales of sub-blocks
  alignas(64) float d[kBlock / 32][16];        // float scales: of the block, or of each 32
  alignas(64) float m[kBlock / 32][16];        // float offsets likewise
  alignas(64) uint8_t mins[4][64];             // integer mins, lines of 4 sub-blocks
};

struct FromScratch {
  static constexpr bool above = false;
  const Unpacked* w;
  int sub_blocks, code_offset;
  template <int N, int G>
  KE_INLINE u8x64 codes(int p, int i, Const<N>, Const<G>) const {
    return load64(w[p].codes[i * N + G]);
  }
  KE_INLINE i32x16 start(const TileX& x, int c, int i, int) const { return set1(-code_offset * x.sum32[c * 8 + i]); }
  KE_INLINE i32x16 scale(int p, int i) const { return load(w[p].scale[i]); }
  KE_INLINE u8x64 mins(int p, int line) const { return load64(w[p].mins[line]); }
  KE_INLINE f32x16 d(int p, int i) const { return load(w[p].d[i]); }
  KE_INLINE f32x16 m(int p, int i) const { return load(w[p].m[i]); }
  template <class F>
  KE_INLINE void each_sub_block(F f) const {
    for (int i = 0; i < sub_blocks; ++i) f(i);
  }
};

template <class Format, int P>
inline void unpack(const FromPanels<Format, P, false>& from, int values, Unpacked* to) {
  constexpr int S = Format::sub_blocks;
  for (int p = 0; p < P; ++p) {
    Unpacked& u = to[p];
    if constexpr (S > 0) {
      constexpr int lines = 64 / S;
      each<S / Format::repeats>([&]<int i>() KE_LAMBDA {
        for (int r = 0; r < Format::repeats; ++r) {
          const SubBlock<i> at{r * (S / Format::repeats)};
          each<lines>([&]<int g>() KE_LAMBDA {
            store64(u.codes[at * lines + g], from.codes(p, at, Const<lines>(), Const<g>()));
          });
          store(u.scale[at], from.scale(p, at));
        }
      });
      store(u.d[0], from.d(p, 0));
      if constexpr (Format::mins > 0) {
        store(u.m[0], from.m(p, 0));
        for (int line = 0; line < S / 4; ++line) store64(u.mins[line], from.mins(p, line));
      }
    } else {
      for (int b = 0; b < values / 32; ++b) {
        each<8>([&]<int g>() KE_LAMBDA { store64(u.codes[b * 8 + g], from.codes(p, b, Const<8>(), Const<g>())); });
        store(u.d[b], from.d(p, b));
        if constexpr (FromPanels<Format, P, false>::layout.scales == 64) store(u.m[b], from.m(p, b));
      }
    }
  }
}

}  // namespace
}  // namespace ke::cpu::KE_ISA
