// Quantized tiles for AVX2, which has no four-product dot: pmaddubsw multiplies unsigned weight codes with signed
// activation codes and adds pairs into int16, several such sums are added in int16, then pmaddwd multiplies by the
// sub-block's integer scale (or by 1) and adds pairs into int32. The result is the arithmetic of quant_dot4.inl, bit
// for bit, because nothing saturates: activation codes lie in -127 .. 127, so one pmaddubsw is at most
//   2 * 15 * 127 = 3810 (4 bits),  2 * 31 * 127 = 7874 (5 bits),  2 * 63 * 127 = 16002 (6 bits)
// in magnitude, and the int16 limit of 32767 holds 8, 4 and 2 of them. 8-bit codes (up to 255: 64770) do not fit;
// they are taken as two 4-bit planes, 16 * high + low. The int32 sums: see quant_dot4.inl.

// Both 16-bit halves of a lane hold the scale: pmaddwd multiplies pairs of 16-bit sums and adds them in one step.
inline i32x16 scale_lanes(i32x16 x) {
  const __m256i mask = _mm256_set1_epi32(0xffff);
  return {_mm256_or_si256(_mm256_and_si256(x.a, mask), _mm256_slli_epi32(x.a, 16)),
          _mm256_or_si256(_mm256_and_si256(x.b, mask), _mm256_slli_epi32(x.b, 16))};
}

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

// s = the int16 sums over lines [Begin, End) of the N lines of sub-block (or block of 32) i.
template <int C, int N, int Begin, int End, Plane P = Plane::All, class W, class I>
KE_INLINE void madd_lines(Sums<C>& s, const W& w, I i, const int8_t* x) {
  each<C, 2>([&]<int c, int h>() KE_LAMBDA { s[c][h] = _mm256_setzero_si256(); });
  each<End - Begin>([&]<int n>() KE_LAMBDA {
    constexpr int g = Begin + n;
    const u8x64 v = w.codes(0, i, Const<N>(), Const<g>());
    const __m256i w0 = plane<P>(v.a), w1 = plane<P>(v.b);
    each<C>([&]<int c>() KE_LAMBDA {
      const __m256i b = broadcast_codes(x + c * kBlock + g * 4);
      s[c][0] = _mm256_add_epi16(s[c][0], _mm256_maddubs_epi16(w0, b));
      pin(s[c][0]);
      s[c][1] = _mm256_add_epi16(s[c][1], _mm256_maddubs_epi16(w1, b));
      pin(s[c][1]);
    });
  });
}

// total += s * scale, pairs of int16 into int32.
template <int C>
KE_INLINE void close(int32_t (&total)[C][16], const Sums<C>& s, i32x16 scale) {
  asm volatile("" ::: "memory");  // or GCC keeps lines for a later use of the same bytes, on the stack
  each<C>([&]<int c>() KE_LAMBDA {
    store_si(total[c], _mm256_add_epi32(load_si(total[c]), _mm256_madd_epi16(s[c][0], scale.a)));
    store_si(total[c] + 8, _mm256_add_epi32(load_si(total[c] + 8), _mm256_madd_epi16(s[c][1], scale.b)));
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
template <int Bits>
struct SubBlocks32 {
  static constexpr int Lines = Bits == 4 ? 8 : 4;

  // sum over 8 sub-blocks of min * sum, with the sums split as 64 * high + low: 2 * 2 * 63 * 64 = 16128 fits int16.
  static inline __m256i mins(__m256i m0, __m256i m1, const int8_t* sums) {
    const __m256i high = _mm256_add_epi16(_mm256_maddubs_epi16(m0, broadcast_codes(sums)),
                                          _mm256_maddubs_epi16(m1, broadcast_codes(sums + 8)));
    const __m256i low = _mm256_add_epi16(_mm256_maddubs_epi16(m0, broadcast_codes(sums + 4)),
                                         _mm256_maddubs_epi16(m1, broadcast_codes(sums + 12)));
    return _mm256_add_epi32(_mm256_madd_epi16(high, _mm256_set1_epi16(64)),
                            _mm256_madd_epi16(low, _mm256_set1_epi16(1)));
  }

  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int, float* acc, int64_t stride, bool first) {
    static_assert(P == 1);
    alignas(32) int32_t total[C][16];
    memset(total, 0, sizeof total);
    w.each_sub_block([&](auto i) KE_LAMBDA {
      const i32x16 scale = w.scale(0, i);
      each<8 / Lines>([&]<int part>() KE_LAMBDA {
        Sums<C> sums;
        madd_lines<C, 8, part * Lines, (part + 1) * Lines>(sums, w, i, x.codes + i * 32);
        close<C>(total, sums, scale);
      });
    });
    alignas(32) float v[C][16];
    const f32x16 d = w.d(0, 0), dmin = w.m(0, 0);
    const u8x64 m0 = w.mins(0, 0), m1 = w.mins(0, 1);
    for (int c = 0; c < C; ++c) {
      const i32x16 m = {mins(m0.a, m1.a, x.mins + c * 16), mins(m0.b, m1.b, x.mins + c * 16)};
      store(v[c], sub(mul(to_float(load(total[c])), d), mul(to_float(m), dmin)));
    }
    add_block<C>(acc, stride, v, x.scale, first);
  }
};

// Q6_K (2 lines fit): sub-blocks of 16 with integer scales; codes are 32 too high.
struct SubBlocks16 {
  // sum over pairs of sub-blocks of scale * sum, for one column: 32 times this was counted too much.
  template <class W>
  static inline i32x16 excess(const W& w, const TileX& x, int c) {
    i32x16 s = set1(0);
    for (int i = 0; i < 16; i += 2) {
      const i32x16 even = w.scale(0, i), odd = w.scale(0, i + 1);
      const int32_t sums =
          (x.sum16[c * 16 + i] & 0xffff) | static_cast<int32_t>(static_cast<uint32_t>(x.sum16[c * 16 + i + 1]) << 16);
      const __m256i pair = _mm256_set1_epi32(sums);
      s.a = _mm256_add_epi32(s.a, _mm256_madd_epi16(_mm256_blend_epi16(even.a, odd.a, 0xaa), pair));
      s.b = _mm256_add_epi32(s.b, _mm256_madd_epi16(_mm256_blend_epi16(even.b, odd.b, 0xaa), pair));
    }
    return s;
  }

  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int, float* acc, int64_t stride, bool first) {
    static_assert(P == 1);
    alignas(32) int32_t total[C][16];
    for (int c = 0; c < C; ++c) store(total[c], shift_left<5>(sub(set1(0), excess(w, x, c))));
    w.each_sub_block([&](auto i) KE_LAMBDA {
      const i32x16 scale = w.scale(0, i);
      each<2>([&]<int part>() KE_LAMBDA {
        Sums<C> sums;
        madd_lines<C, 4, part * 2, part * 2 + 2>(sums, w, i, x.codes + i * 16);
        close<C>(total, sums, scale);
      });
    });
    alignas(32) float v[C][16];
    const f32x16 d = w.d(0, 0);
    for (int c = 0; c < C; ++c) store(v[c], mul(to_float(load(total[c])), d));
    add_block<C>(acc, stride, v, x.scale, first);
  }
};

// Blocks of 32 with a float scale, and an offset m where Affine.
template <int Bits, bool Affine>
struct Blocks32 {
  template <int C, class W>
  static KE_INLINE void block(int32_t (&total)[C][16], const W& w, int b, const int8_t* x) {
    const i32x16 one = {_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
    Sums<C> sums;
    if constexpr (Bits == 8) {
      madd_lines<C, 8, 0, 8, Plane::Low>(sums, w, b, x);
      close<C>(total, sums, one);
      madd_lines<C, 8, 0, 8, Plane::High>(sums, w, b, x);
      close<C>(total, sums, {_mm256_set1_epi16(16), _mm256_set1_epi16(16)});
    } else {
      constexpr int lines = Bits == 4 ? 8 : 4;
      each<8 / lines>([&]<int part>() KE_LAMBDA {
        madd_lines<C, 8, part * lines, (part + 1) * lines>(sums, w, b, x);
        close<C>(total, sums, one);
      });
    }
  }

  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int values, float* acc, int64_t stride, bool first) {
    static_assert(P == 1);
    alignas(32) float v[C][16];
    memset(v, 0, sizeof v);
    for (int b = 0; b < values / 32; ++b) {
      w.start_block(b);
      alignas(32) int32_t total[C][16];
      for (int c = 0; c < C; ++c) store(total[c], set1(Affine ? 0 : -w.offset() * x.sum32[c * 8 + b]));
      block<C>(total, w, b, x.codes + b * 32);
      const f32x16 d = w.d(0, b);
      for (int c = 0; c < C; ++c) {
        f32x16 t = mul(to_float(load(total[c])), d);
        if constexpr (Affine) t = add(t, mul(to_float(set1(x.sum32[c * 8 + b])), w.m(0, b)));
        store(v[c], add(load(v[c]), t));
      }
    }
    add_block<C>(acc, stride, v, x.scale, first);
  }
};
