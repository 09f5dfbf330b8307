// Quantized tiles for instruction sets with a four-product dot (u8 x s8 into int32), and the definition of the
// arithmetic. For one block of activations (scale dx, codes x) and one output row:
//   Q4_K, Q5_K   v = d * float(I) - dmin * float(M),  I = sum_s scale_s * sum q x,  M = sum_s min_s * sum_s x
//   Q2_K         likewise in sub-blocks of 16
//   Q3_K         v = d * float(I),                    I = sum_s scale_s * sum (q - 4) x
//   Q6_K         v = d * float(I),                    I = sum_s scale_s * sum (q - 32) x
//   IQ4_XS       v = d * float(I),                    I = sum_s scale_s * sum t x, t the table's value of a code
//   I8           v = d * float(I),                    I = sum over 256 of (q - 128) x, |I| < 2^23
//   Q*_0         v = sum over blocks of 32 in order of d_b * float(sum (q - offset) x); IQ4_NL alike with sum t x
//   Q*_1         v = ... of (d_b * float(sum q x) + m_b * float(sum x))
// and the row's sum takes acc += v * dx, block by block in order. No step of the floating-point part is fused, so every
// instruction set gives the same bits. I and M are exact, as no int32 overflows: |x| <= 127, so one dot4 is at most
// 4 * 255 * 127 < 2^17; a sub-block's sum, which may begin at -32 sum16 or -128 sum32 (|sum32| <= 4064), stays below
// 2^21; |I| <= 8 * 63 * 32 * 31 * 127 (Q5_K) or 16 * 128 * 16 * 63 * 127 (Q6_K) < 2^28, 8 * 32 * 32 * 127 * 127
// (IQ4_XS) < 2^28; 16 * 32 * 16 * 4 * 127 (Q3_K) < 2^22, which times kShortScaleUnit is below 2^30; codes above bit 0
// are below 256, too (128 where kSignedDot). |M| <= 8 * 63 * 4064 < 2^21, 16 * 15 * 2032 (Q2_K) < 2^19.
#pragma once
#include "cpu/formats.inl"

namespace ke::cpu::KE_ISA {
namespace {

constexpr bool kPrefersI8 = true;

// Products of codes that are stored 128 too high with codes of x: what is `offset` times x too much.
struct CodeProducts {
  static constexpr int offset = kEightBitOffset;
  static KE_INLINE u8x64 weights(u8x64 stored) { return eight_bit_codes(stored); }
  static KE_INLINE i32x16 add(i32x16 sum, u8x64 w, const int8_t* x) { return dot4(sum, w, x); }
};

template <int P, int C>
KE_INLINE void add_block(float* acc, int64_t stride, const f32x16 (&v)[C][P], const float* scale) {
  each<C>([&]<int c>() KE_LAMBDA {
    const f32x16 dx = set1(scale[c]);
    each<P>([&]<int p>() KE_LAMBDA {
      float* a = acc + c * stride + 16 * p;
      store(a, add(load(a), mul(v[c][p], dx)));
    });
  });
}

// s[c][p] += the products of the N lines of sub-block (or block of 32) i, with W::above at the bit where its codes are.
template <int N, int P, int C, class W, class I>
KE_INLINE void dot_lines(i32x16 (&s)[C][P], const W& w, I i, const int8_t* x) {
  each<N>([&]<int g>() KE_LAMBDA {
    u8x64 v[P];
    each<P>([&]<int p>() KE_LAMBDA {
      if constexpr (W::above)
        v[p] = w.codes_above(p, i, Const<N>(), Const<g>());
      else
        v[p] = w.codes(p, i, Const<N>(), Const<g>());
    });
    each<C>([&]<int c>() KE_LAMBDA {
      each<P>([&]<int p>() KE_LAMBDA { s[c][p] = dot4(s[c][p], v[p], x + c * kBlock + g * 4); });
    });
  });
}

// The sums of a sub-block at bit 0: exact, as no bits are below the codes.
template <int P, int C, class W, class I>
KE_INLINE void put_down(i32x16 (&s)[C][P], const W&, I) {
  if constexpr (W::above) {
    constexpr int bit = W::bit_of(I{});
    if constexpr (bit > 0) each<C, P>([&]<int c, int p>() KE_LAMBDA { s[c][p] = shift_right<bit>(s[c][p]); });
  }
}

// total[c][p] += s[c][p] * scale of sub-block i.
template <int P, int C, class W>
KE_INLINE void add_scaled(i32x16 (&total)[C][P], const i32x16 (&s)[C][P], const W& w, int i) {
  each<P>([&]<int p>() KE_LAMBDA {
    const i32x16 scale = w.scale(p, i);
    each<C>([&]<int c>() KE_LAMBDA { total[c][p] = add(total[c][p], mul(s[c][p], scale)); });
  });
}

// The same in units of 1 / kShortScaleUnit, where a sum fits 16 bits: one instruction instead of two long ones.
template <int P, int C, class W>
KE_INLINE void add_short_scaled(i32x16 (&total)[C][P], const i32x16 (&s)[C][P], const W& w, int i) {
  each<P>([&]<int p>() KE_LAMBDA {
    const i32x16 bytes = load_short_scales(w.scale_bytes(p, i));
    const i32x16 scale = W::nibble_scales ? masked<15 * kShortScaleUnit>(bytes) : bytes;
    each<C>([&]<int c>() KE_LAMBDA { total[c][p] = add_short_products(total[c][p], s[c][p], scale); });
  });
}

// Q4_K, Q5_K: sub-blocks of 32 with integer scales and mins.
struct AffineSubBlocks {
  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int, float* acc, int64_t stride) {
    i32x16 total[C][P];
    each<C, P>([&]<int c, int p>() KE_LAMBDA { total[c][p] = set1(0); });
    w.each_sub_block([&](auto i) KE_LAMBDA {
      i32x16 s[C][P];
      each<C, P>([&]<int c, int p>() KE_LAMBDA { s[c][p] = set1(0); });
      dot_lines<8>(s, w, i, x.codes + i * 32);
      add_scaled(total, s, w, i);
    });
    f32x16 v[C][P];
    each<P>([&]<int p>() KE_LAMBDA {
      const u8x64 m0 = w.mins(p, 0), m1 = w.mins(p, 1);
      const f32x16 d = w.d(p, 0), dmin = w.m(p, 0);
      each<C>([&]<int c>() KE_LAMBDA {
        const int8_t* sums = x.mins + c * 16;
        const i32x16 high = dot4(dot4(set1(0), m0, sums), m1, sums + 8);
        const i32x16 mins = dot4(dot4(shift_left<6>(high), m0, sums + 4), m1, sums + 12);
        v[c][p] = sub(mul(to_float(total[c][p]), d), mul(to_float(mins), dmin));
      });
    });
    add_block(acc, stride, v, x.scale);
  }
};

// Q2_K: sub-blocks of 16 with integer scales and mins.
struct AffineSubBlocks16 {
  // Sums of 16 codes each (|sum| <= 16 * 127) as 64 * high + low, |high|, |low| <= 32, ties to even.
  struct Digits {
    int8_t high[16], low[16];
    explicit Digits(const int32_t* sums) {
      const i32x16 all = load(sums), upper = to_int(mul(to_float(all), set1(1.0f / 64)));
      store_bytes(high, upper);
      store_bytes(low, sub(all, shift_left<6>(upper)));
    }
    // sum over sub-blocks of min * sum; mins(j): those of sub-blocks 4 j .. 4 j + 3.
    template <class Mins>
    KE_INLINE i32x16 times(const Mins& mins) const {
      i32x16 upper = set1(0);
      each<4>([&]<int j>() KE_LAMBDA { upper = dot4(upper, mins(j), high + 4 * j); });
      i32x16 sum = shift_left<6>(upper);
      each<4>([&]<int j>() KE_LAMBDA { sum = dot4(sum, mins(j), low + 4 * j); });
      return sum;
    }
  };

  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int, float* acc, int64_t stride) {
    i32x16 total[C][P];
    each<C, P>([&]<int c, int p>() KE_LAMBDA { total[c][p] = set1(0); });
    w.each_sub_block([&](auto i) KE_LAMBDA {
      i32x16 s[C][P];
      each<C, P>([&]<int c, int p>() KE_LAMBDA { s[c][p] = set1(0); });
      dot_lines<4>(s, w, i, x.codes + i * 16);
      put_down(s, w, i);
      if constexpr (W::above)
        add_short_scaled(total, s, w, i);
      else
        add_scaled(total, s, w, i);
    });
    constexpr float unit = W::above ? 1.0f / kShortScaleUnit : 1.0f;  // a power of two
    f32x16 v[C][P];
    each<C>([&]<int c>() KE_LAMBDA {
      const Digits digits(x.sum16 + c * 16);
      each<P>([&]<int p>() KE_LAMBDA {
        const i32x16 mins = digits.times([&](int j) KE_LAMBDA { return w.mins(p, j); });
        const f32x16 d = mul(w.d(p, 0), set1(unit));
        v[c][p] = sub(mul(to_float(total[c][p]), d), mul(to_float(mins), w.m(p, 0)));
      });
    });
    add_block(acc, stride, v, x.scale);
  }
};

// Q6_K, Q3_K: sub-blocks of 16 with integer scales; codes, of Q3_K eight times the codes, are 32 too high.
struct SignedSubBlocks {
  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int, float* acc, int64_t stride) {
    i32x16 total[C][P];
    each<C, P>([&]<int c, int p>() KE_LAMBDA { total[c][p] = set1(0); });
    w.each_sub_block([&](auto i) KE_LAMBDA {
      i32x16 s[C][P];
      each<C>([&]<int c>() KE_LAMBDA {
        const i32x16 start = set1(x.starts[c * kStarts + i]);
        each<P>([&]<int p>() KE_LAMBDA { s[c][p] = start; });
      });
      dot_lines<4>(s, w, i, x.codes + i * 16);
      add_scaled(total, s, w, i);
    });
    f32x16 v[C][P];
    each<P>([&]<int p>() KE_LAMBDA {
      const f32x16 d = w.d(p, 0);
      each<C>([&]<int c>() KE_LAMBDA { v[c][p] = mul(to_float(total[c][p]), d); });
    });
    add_block(acc, stride, v, x.scale);
  }
};

// Q3_K: as Q6_K where codes are unpacked; as stored, they lie at different bits, and so do the sums' beginnings.
struct ShortSubBlocks {
  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int values, float* acc, int64_t stride) {
    if constexpr (W::above)
      stored_tile<P, C>(w, x, acc, stride);
    else
      SignedSubBlocks::template tile<P, C>(w, x, values, acc, stride);
  }

 private:
  struct Units {
    int32_t of[16];
    constexpr Units() : of{} {
      for (int i = 0; i < 16; ++i) of[i] = -4 * (1 << Q3_K::above[i % 8]);
    }
  };

  template <int P, int C, class W>
  static KE_INLINE void stored_tile(const W& w, const TileX& x, float* acc, int64_t stride) {
    alignas(64) static constexpr Units units;
    alignas(64) int32_t starts[C][16];
    each<C>([&]<int c>() KE_LAMBDA { store(starts[c], mul(load(x.sum16 + c * 16), load(units.of))); });
    i32x16 total[C][P];
    each<C, P>([&]<int c, int p>() KE_LAMBDA { total[c][p] = set1(0); });
    w.each_sub_block([&](auto i) KE_LAMBDA {
      i32x16 s[C][P];
      each<C>([&]<int c>() KE_LAMBDA {
        const i32x16 start = set1(starts[c][i]);
        each<P>([&]<int p>() KE_LAMBDA { s[c][p] = start; });
      });
      dot_lines<4>(s, w, i, x.codes + i * 16);
      put_down(s, w, i);
      add_short_scaled(total, s, w, i);
    });
    f32x16 v[C][P];
    each<P>([&]<int p>() KE_LAMBDA {
      const f32x16 d = mul(w.d(p, 0), set1(static_cast<float>(1 << Q3_K::shift) / kShortScaleUnit));
      each<C>([&]<int c>() KE_LAMBDA { v[c][p] = mul(to_float(total[c][p]), d); });
    });
    add_block(acc, stride, v, x.scale);
  }
};

// IQ4_XS: sub-blocks of 32 with integer scales; values of the table, 128 too high where the dot wants them so.
struct TableSubBlocks32 {
  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int values, float* acc, int64_t stride) {
    i32x16 total[C][P];
    each<C, P>([&]<int c, int p>() KE_LAMBDA { total[c][p] = set1(0); });
    w.each_sub_block([&](auto i) KE_LAMBDA {
      i32x16 s[C][P];
      each<C>([&]<int c>() KE_LAMBDA {
        const i32x16 start = w.start(x, c, i, values);
        each<P>([&]<int p>() KE_LAMBDA { s[c][p] = start; });
      });
      dot_lines<8>(s, w, i, x.codes + i * 32);
      add_scaled(total, s, w, i);
    });
    f32x16 v[C][P];
    each<P>([&]<int p>() KE_LAMBDA {
      const f32x16 d = w.d(p, 0);
      each<C>([&]<int c>() KE_LAMBDA { v[c][p] = mul(to_float(total[c][p]), d); });
    });
    add_block(acc, stride, v, x.scale);
  }
};

// Blocks of 32 with a float scale, and an offset m where Affine.
template <bool Affine>
struct FloatBlocks {
  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int values, float* acc, int64_t stride) {
    f32x16 v[C][P];
    each<C, P>([&]<int c, int p>() KE_LAMBDA { v[c][p] = zero(); });
    for (int b = 0; b < values / 32; ++b) {
      i32x16 s[C][P];
      each<C>([&]<int c>() KE_LAMBDA {
        const i32x16 start = w.start(x, c, b, values);
        each<P>([&]<int p>() KE_LAMBDA { s[c][p] = start; });
      });
      dot_lines<8>(s, w, b, x.codes + b * 32);
      each<P>([&]<int p>() KE_LAMBDA {
        const f32x16 d = w.d(p, b);
        each<C>([&]<int c>() KE_LAMBDA {
          f32x16 t = mul(to_float(s[c][p]), d);
          if constexpr (Affine) t = add(t, mul(to_float(set1(x.sum32[c * 8 + b])), w.m(p, b)));
          v[c][p] = add(v[c][p], t);
        });
      });
    }
    add_block(acc, stride, v, x.scale);
  }
};

// I8: nothing but products between the float scales of two blocks.
struct WholeBlocks {
  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int, float* acc, int64_t stride) {
    i32x16 s[C][P];
    each<C>([&]<int c>() KE_LAMBDA {
      const i32x16 start = set1(kEightBitOffset ? x.total[c] : 0);
      each<P>([&]<int p>() KE_LAMBDA { s[c][p] = start; });
    });
    w.each_sub_block([&](auto i) KE_LAMBDA { dot_lines<8>(s, w, i, x.codes + i * 32); });
    f32x16 v[C][P];
    each<P>([&]<int p>() KE_LAMBDA {
      const f32x16 d = w.d(p, 0);
      each<C>([&]<int c>() KE_LAMBDA { v[c][p] = mul(to_float(s[c][p]), d); });
    });
    add_block(acc, stride, v, x.scale);
  }
};

// How many bits the codes have does not matter here.
template <int Bits>
using SubBlocks32 = AffineSubBlocks;
template <int Bits>
struct SubBlocks16 : SignedSubBlocks {};
template <>
struct SubBlocks16<3> : ShortSubBlocks {};
template <int Bits, bool Affine>
using Blocks32 = FloatBlocks<Affine>;
using TableBlocks32 = FloatBlocks<false>;

}  // namespace
}  // namespace ke::cpu::KE_ISA
