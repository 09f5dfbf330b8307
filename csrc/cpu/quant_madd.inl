// Quantized tiles for AVX2, which has no four-product dot: pmaddubsw multiplies unsigned weight codes with signed
// activation codes and adds pairs into int16, several such sums are added in int16, then pmaddwd multiplies by the
// sub-block's integer scale (or by 1) and adds pairs into int32. The result is the arithmetic of quant_dot4.inl, bit
// for bit, because nothing saturates: activation codes lie in -127 .. 127, so one pmaddubsw is at most
//   2 * 15 * 127 = 3810 (4 bits),  2 * 31 * 127 = 7874 (5 bits),  2 * 63 * 127 = 16002 (6 bits)
// in magnitude, and the int16 limit of 32767 holds 8, 4 and 2 of them. 8-bit codes (up to 255: 64770) do not fit;
// they are taken as two 4-bit planes, 16 * high + low. The int32 sums: see quant_dot4.inl.

template <int C>
using Sums = __m256i[C][2];

// Keeps GCC from reordering the additions, which costs it registers.
inline void pin(__m256i& v) { asm volatile("" : "+x"(v)); }

inline __m256i broadcast_codes(const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  return _mm256_set1_epi32(four);
}

// Which 4 bits of a stored byte are multiplied.
enum class Plane { All, Low, High };

template <Plane P>
inline __m256i plane(__m256i w) {
  const __m256i mask = _mm256_set1_epi8(15);
  if constexpr (P == Plane::Low) return _mm256_and_si256(w, mask);
  if constexpr (P == Plane::High) return _mm256_and_si256(_mm256_srli_epi16(w, 4), mask);
  return w;
}

// s = the int16 sums over `Lines` lines of codes.
template <int C, int Lines, Plane P = Plane::All>
KE_INLINE inline void madd_lines(Sums<C>& s, const Unpacked& w, int line, const int8_t* x) {
  each<C, 2>([&]<int c, int h>() KE_INLINE { s[c][h] = _mm256_setzero_si256(); });
  each<Lines>([&]<int g>() KE_INLINE {
    const __m256i w0 = plane<P>(load_si(w.codes[line + g])), w1 = plane<P>(load_si(w.codes[line + g] + 32));
    each<C>([&]<int c>() KE_INLINE {
      const __m256i b = broadcast_codes(x + (g * C + c) * 4);
      s[c][0] = _mm256_add_epi16(s[c][0], _mm256_maddubs_epi16(w0, b));
      pin(s[c][0]);
      s[c][1] = _mm256_add_epi16(s[c][1], _mm256_maddubs_epi16(w1, b));
      pin(s[c][1]);
    });
  });
}

// total += s * scale, pairs of int16 into int32.
template <int C>
KE_INLINE inline void close(int32_t (&total)[C][16], const Sums<C>& s, __m256i scale0, __m256i scale1) {
  each<C>([&]<int c>() KE_INLINE {
    store_si(total[c], _mm256_add_epi32(load_si(total[c]), _mm256_madd_epi16(s[c][0], scale0)));
    store_si(total[c] + 8, _mm256_add_epi32(load_si(total[c] + 8), _mm256_madd_epi16(s[c][1], scale1)));
  });
}

template <int C>
inline void add_block(float* acc, int64_t stride, const float (&v)[C][16], const float* scale, bool first) {
  for (int c = 0; c < C; ++c) {
    float* a = acc + c * stride;
    const f32x16 t = mul(load(v[c]), set1(scale[c]));
    store(a, first ? t : add(load(a), t));
  }
}

// Q4_K (8 lines fit an int16) and Q5_K (4 do): sub-blocks of 32 with integer scales and mins.
template <int Lines>
struct SubBlocks32 {
  // sum over 8 sub-blocks of min * sum, with the sums split as 64 * high + low: 2 * 2 * 63 * 64 = 16128 fits int16.
  static inline __m256i mins(const Unpacked& w, int half, const int8_t* x, int c, int C) {
    const __m256i m0 = load_si(w.mins[0] + half * 32), m1 = load_si(w.mins[1] + half * 32);
    const __m256i high = _mm256_add_epi16(_mm256_maddubs_epi16(m0, broadcast_codes(x + c * 4)),
                                          _mm256_maddubs_epi16(m1, broadcast_codes(x + (2 * C + c) * 4)));
    const __m256i low = _mm256_add_epi16(_mm256_maddubs_epi16(m0, broadcast_codes(x + (C + c) * 4)),
                                         _mm256_maddubs_epi16(m1, broadcast_codes(x + (3 * C + c) * 4)));
    return _mm256_add_epi32(_mm256_madd_epi16(high, _mm256_set1_epi16(64)),
                            _mm256_madd_epi16(low, _mm256_set1_epi16(1)));
  }

  template <int P, int C>
  static inline void tile(const Unpacked* w, const TileX& x, int, float* acc, int64_t stride, bool first) {
    static_assert(P == 1);
    alignas(32) int32_t total[C][16];
    memset(total, 0, sizeof total);
    for (int s = 0; s < 8; ++s) {
      const __m256i scale0 = load_si(w->scale[s]), scale1 = load_si(w->scale[s] + 8);
      for (int line = s * 8; line < s * 8 + 8; line += Lines) {
        Sums<C> sums;
        madd_lines<C, Lines>(sums, *w, line, x.codes + line * 4 * C);
        close<C>(total, sums, scale0, scale1);
      }
    }
    alignas(32) float v[C][16];
    const f32x16 d = load(w->d[0]), dmin = load(w->m[0]);
    for (int c = 0; c < C; ++c) {
      const i32x16 m = {mins(*w, 0, x.mins, c, C), mins(*w, 1, x.mins, c, C)};
      store(v[c], sub(mul(to_float(load(total[c])), d), mul(to_float(m), dmin)));
    }
    add_block<C>(acc, stride, v, x.scale, first);
  }
};

// Q6_K (2 lines fit): sub-blocks of 16 with integer scales; codes are 32 too high. The excess, 32 * sum, is too wide
// for int16 but half of it is not (16 * 16 * 127 = 32512), and pmaddwd adds the two halves of a lane.
struct SubBlocks16 {
  template <int P, int C>
  static inline void tile(const Unpacked* w, const TileX& x, int, float* acc, int64_t stride, bool first) {
    static_assert(P == 1);
    alignas(32) int32_t total[C][16];
    memset(total, 0, sizeof total);
    for (int s = 0; s < 16; ++s) {
      const __m256i scale0 = load_si(w->scale[s]), scale1 = load_si(w->scale[s] + 8);
      Sums<C> sums;
      each<C>([&]<int c>() KE_INLINE {
        sums[c][0] = sums[c][1] = _mm256_set1_epi16(static_cast<int16_t>(-16 * x.sum16[s * C + c]));
      });
      close<C>(total, sums, scale0, scale1);
      for (int line = s * 4; line < s * 4 + 4; line += 2) {
        madd_lines<C, 2>(sums, *w, line, x.codes + line * 4 * C);
        close<C>(total, sums, scale0, scale1);
      }
    }
    alignas(32) float v[C][16];
    for (int c = 0; c < C; ++c) store(v[c], mul(to_float(load(total[c])), load(w->d[0])));
    add_block<C>(acc, stride, v, x.scale, first);
  }
};

// Blocks of 32 with a float scale; codes of Bits bits are 2^Shift too high (Shift < 0: not at all), offsets m where
// Affine.
template <int Bits, int Shift, bool Affine>
struct Blocks32 {
  template <int C>
  static inline void block(int32_t (&total)[C][16], const Unpacked& w, int b, const int8_t* x) {
    const __m256i one = _mm256_set1_epi16(1);
    Sums<C> sums;
    if constexpr (Bits == 8) {
      const __m256i sixteen = _mm256_set1_epi16(16);
      madd_lines<C, 8, Plane::Low>(sums, w, b * 8, x);
      close<C>(total, sums, one, one);
      madd_lines<C, 8, Plane::High>(sums, w, b * 8, x);
      close<C>(total, sums, sixteen, sixteen);
    } else {
      constexpr int lines = Bits == 4 ? 8 : 4;
      for (int line = 0; line < 8; line += lines) {
        madd_lines<C, lines>(sums, w, b * 8 + line, x + line * 4 * C);
        close<C>(total, sums, one, one);
      }
    }
  }

  template <int P, int C>
  static inline void tile(const Unpacked* w, const TileX& x, int values, float* acc, int64_t stride, bool first) {
    static_assert(P == 1);
    alignas(32) float v[C][16];
    memset(v, 0, sizeof v);
    for (int b = 0; b < values / 32; ++b) {
      alignas(32) int32_t total[C][16];
      for (int c = 0; c < C; ++c)
        store(total[c], set1(Shift >= 0 ? -(x.sum32[b * C + c] << (Shift >= 0 ? Shift : 0)) : 0));
      block<C>(total, *w, b, x.codes + b * 32 * C);
      const f32x16 d = load(w->d[b]);
      for (int c = 0; c < C; ++c) {
        f32x16 t = mul(to_float(load(total[c])), d);
        if constexpr (Affine) t = add(t, mul(to_float(set1(x.sum32[b * C + c])), load(w->m[b])));
        store(v[c], add(load(v[c]), t));
      }
    }
    add_block<C>(acc, stride, v, x.scale, first);
  }
};
