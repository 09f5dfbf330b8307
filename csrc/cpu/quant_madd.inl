// Quantized tiles for AVX2, which has no four-product dot: pmaddubsw multiplies unsigned weight codes with signed
// activation codes and adds pairs into int16, several such sums are added in int16, then pmaddwd multiplies by the
// sub-block's integer scale (or by 1) and adds pairs into int32. The result is the arithmetic of quant_dot4.inl, bit
// for bit, because nothing saturates: activation codes lie in -127 .. 127, so one pmaddubsw is at most
//   2 * 3 * 127 = 762 (2 bits),  2 * 7 * 127 = 1778 (3 bits),  2 * 15 * 127 = 3810 (4 bits),  2 * 31 * 127 = 7874 (5
//   bits), 2 * 63 * 127 = 16002 (6 bits)
// in magnitude, and the int16 limit of 32767 holds 32, 16, 8, 4 and 2 of them, or where sums begin below zero, more
// (SubBlocks16). 8-bit codes (up to 255: 64770) do not fit;
// both factors are widened to int16 and pmaddwd adds 2 * 255 * 127 into int32; for one row, which widening does not pay
// for, magnitudes of the signed codes meet activations that took the signs: 2 * 128 * 127 = 32512. The int32 sums: see
// quant_dot4.inl.
#pragma once
#include "cpu/formats.inl"

namespace ke::cpu::KE_ISA {
namespace {

// Both 16-bit halves of a lane hold the scale: pmaddwd multiplies pairs of 16-bit sums and adds them in one step.
inline i32x16 scale_lanes(i32x16 x) {
  const __m256i mask = _mm256_set1_epi32(0xffff);
  return {_mm256_or_si256(_mm256_and_si256(x.a, mask), _mm256_slli_epi32(x.a, 16)),
          _mm256_or_si256(_mm256_and_si256(x.b, mask), _mm256_slli_epi32(x.b, 16))};
}

constexpr bool kPrefersI8 = false;  // I8 would run like Q8_0, at 20 products a cycle where Q6_K reaches 32

template <int C>
using Sums = __m256i[C][2];

// Keeps GCC from reordering the additions, which costs it registers.
inline void pin(__m256i& v) { asm volatile("" : "+x"(v)); }

template <class T>
inline __m256i broadcast_dword(const T* p) {
  int32_t dword;
  memcpy(&dword, p, 4);
  return _mm256_set1_epi32(dword);
}

// The bytes of a lane as int16: 0 and 2, or 1 and 3.
inline __m256i even_bytes(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi16(255)); }
inline __m256i odd_bytes(__m256i v) { return _mm256_srli_epi16(v, 8); }

// sum += a * b, pairs of int16 into int32.
inline void add_products(__m256i& sum, __m256i a, __m256i b) {
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
  pin(sum);
}

// Calls f<first column, columns>() for a tile of C columns in one or two parts of up to three: then the int16 sums and
// the int32 totals (2 x 6), 2 weights, a broadcast and a product fit the 16 registers.
template <int C, class F>
KE_INLINE void column_parts(const F& f) {
  constexpr int first = C <= 3 ? C : (C + 1) / 2;
  f.template operator()<0, first>();
  if constexpr (C > first) f.template operator()<first, C - first>();
}

// s += the int16 sums over lines [Begin, End) of the N lines of sub-block (or block of 32) i.
template <int C, int N, int Begin, int End, class W, class I>
KE_INLINE void madd_lines(Sums<C>& s, const W& w, I i, const int8_t* x) {
  each<End - Begin>([&]<int n>() KE_LAMBDA {
    constexpr int g = Begin + n;
    const u8x64 v = w.codes(0, i, Const<N>(), Const<g>());
    each<C>([&]<int c>() KE_LAMBDA {
      const __m256i b = broadcast_dword(x + c * kBlock + g * 4);
      s[c][0] = _mm256_add_epi16(s[c][0], _mm256_maddubs_epi16(v.a, b));
      pin(s[c][0]);
      s[c][1] = _mm256_add_epi16(s[c][1], _mm256_maddubs_epi16(v.b, b));
      pin(s[c][1]);
    });
  });
  asm volatile("" ::: "memory");  // or GCC keeps lines for a later use of the same bytes, on the stack
}

// total += s * scale, pairs of int16 into int32.
template <int C>
KE_INLINE void add_scaled(Sums<C>& total, const Sums<C>& s, i32x16 scale) {
  each<C>([&]<int c>() KE_LAMBDA {
    add_products(total[c][0], s[c][0], scale.a);
    add_products(total[c][1], s[c][1], scale.b);
  });
}

// total += the products with sub-block (or block of 32) i of N lines, `Fit` of which fit an int16.
template <int C, int N, int Fit, class W, class I>
KE_INLINE void add_lines(Sums<C>& total, const W& w, I i, const int8_t* x, i32x16 scale) {
  each<N / Fit>([&]<int part>() KE_LAMBDA {
    Sums<C> s;
    each<C, 2>([&]<int c, int h>() KE_LAMBDA { s[c][h] = _mm256_setzero_si256(); });
    madd_lines<C, N, part * Fit, (part + 1) * Fit>(s, w, i, x);
    add_scaled<C>(total, s, scale);
  });
}

// Where the sums of Q6_K's sub-blocks of 16 begin (SubBlocks16): of 256 codes, -32 times the sums of bytes 0 and 1 of
// every four and of bytes 2 and 3, an int16 pair for each sub-block.
inline void sub_block_starts(const int8_t* codes, int32_t* starts) {
  for (int i = 0; i < 8; ++i) {
    __m256i s = _mm256_maddubs_epi16(_mm256_set1_epi8(1), load_si(codes + 32 * i));
    s = _mm256_add_epi16(s, _mm256_shuffle_epi32(s, 0x4e));
    s = _mm256_add_epi16(s, _mm256_shuffle_epi32(s, 0xb1));
    s = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16(s, 5));
    starts[2 * i] = _mm256_extract_epi32(s, 0);
    starts[2 * i + 1] = _mm256_extract_epi32(s, 4);
  }
}

// acc += v * scale, one row.
inline void add_block(float* acc, f32x16 v, float scale) { store(acc, add(load(acc), mul(v, set1(scale)))); }

// Sub-blocks with integer scales and mins: of 32 values, Q4_K (8 lines fit an int16) and Q5_K (4 do), or of 16, Q2_K
// (all 4 do).
template <int Bits>
struct AffineSubBlocks {
  static constexpr int lines = Bits == 2 ? 4 : 8, sub_blocks = 64 / lines;
  // Sums of sub-blocks (at most 32 * 127) as int16 pairs in the order of even_bytes and odd_bytes of a line of mins:
  // dwords 0, 1 = sub-blocks (0, 2), (1, 3); 4, 5 = (4, 6), (5, 7) ...
  static inline void pair_sums(const int32_t* sums, int32_t* pairs) {
    for (int i = 0; i < sub_blocks; i += 8) {
      const __m256i v = load_si(sums + i);
      store_si(pairs + i, _mm256_blend_epi16(v, _mm256_slli_epi32(_mm256_srli_si256(v, 8), 16), 0xaa));
    }
  }
  // sum over the sub-blocks of a line of min * sum.
  static inline __m256i mins(__m256i line, const int32_t* pairs) {
    return _mm256_add_epi32(_mm256_madd_epi16(even_bytes(line), broadcast_dword(pairs)),
                            _mm256_madd_epi16(odd_bytes(line), broadcast_dword(pairs + 1)));
  }

  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int, float* acc, int64_t stride) {
    static_assert(P == 1);
    alignas(32) int32_t totals[C][16], pairs[C][sub_blocks];
    const int32_t* sums = Bits == 2 ? x.sum16 : x.sum32;
    for (int c = 0; c < C; ++c) pair_sums(sums + c * sub_blocks, pairs[c]);
    column_parts<C>([&]<int c0, int n>() KE_LAMBDA {
      Sums<n> total;
      each<n, 2>([&]<int c, int h>() KE_LAMBDA { total[c][h] = _mm256_setzero_si256(); });
      w.each_sub_block([&](auto i) KE_LAMBDA {
        const int8_t* codes = x.codes + c0 * kBlock + i * (4 * lines);
        add_lines<n, lines, Bits == 4 ? 8 : 4>(total, w, i, codes, w.scale(0, i));
      });
      each<n>([&]<int c>() KE_LAMBDA { store(totals[c0 + c], i32x16{total[c][0], total[c][1]}); });
    });
    const f32x16 d = w.d(0, 0), dmin = w.m(0, 0);
    for (int c = 0; c < C; ++c) {
      i32x16 m = set1(0);
      for (int j = 0; j < sub_blocks / 4; ++j) {
        const u8x64 line = w.mins(0, j);
        m = add(m, {mins(line.a, pairs[c] + 4 * j), mins(line.b, pairs[c] + 4 * j)});
      }
      add_block(acc + c * stride, sub(mul(to_float(load(totals[c])), d), mul(to_float(m), dmin)), x.scale[c]);
    }
  }
};

template <int Bits>
using SubBlocks32 = AffineSubBlocks<Bits>;
using AffineSubBlocks16 = AffineSubBlocks<2>;

// Q6_K and Q3_K: sub-blocks of 16 with integer scales; codes are 32 and 4 too high.
//
// The four lines of a sub-block of Q6_K do not fit an int16: 4 * 16002 = 64008. What is wanted of them does, as the
// true codes are in -32 .. 31: |sum over 8 values of (code - 32) * x| <= 8 * 32 * 127 = 32512. So the sums begin at -32
// times the sum of their 8 codes of x (|32 * 8 * 127| = 32512 as well). No pmaddubsw saturates (16002), additions of
// int16 wrap around, that is, they are exact modulo 2^16, and so the last of them is exact. Q3_K likewise, with -4
// times.
template <int Bits>
struct SubBlocks16 {
  // Sums of 16 sub-blocks (at most 16 * 127) as int16 pairs (0, 1), (2, 3) ... in the even dwords.
  static inline void pair_sums(const int32_t* sums, int32_t* pairs) {
    for (int i = 0; i < 16; i += 8) {
      const __m256i v = load_si(sums + i);
      store_si(pairs + i, _mm256_blend_epi16(v, _mm256_srli_epi64(v, 16), 0x22));
    }
  }

  // One row, which another instruction set may have packed, so that `starts` are not those of sub_block_starts: the sum
  // over sub-blocks of scale * sum, 32 (4) times which is counted too much, comes off first.
  template <class W>
  static inline void one_row(const W& w, const TileX& x, float* acc) {
    alignas(32) int32_t pairs[16];
    pair_sums(x.sum16, pairs);
    Sums<1> total = {{_mm256_setzero_si256(), _mm256_setzero_si256()}};
    for (int i = 0; i < 16; i += 2) {
      const i32x16 even = w.scale(0, i), odd = w.scale(0, i + 1);
      const __m256i sums = broadcast_dword(pairs + i);
      add_products(total[0][0], _mm256_blend_epi16(even.a, odd.a, 0xaa), sums);
      add_products(total[0][1], _mm256_blend_epi16(even.b, odd.b, 0xaa), sums);
    }
    each<2>([&]<int h>() KE_LAMBDA {
      total[0][h] = _mm256_slli_epi32(_mm256_sub_epi32(_mm256_setzero_si256(), total[0][h]), Bits - 1);
    });
    w.each_sub_block(
        [&](auto i) KE_LAMBDA { add_lines<1, 4, Bits == 6 ? 2 : 4>(total, w, i, x.codes + i * 16, w.scale(0, i)); });
    add_block(acc, mul(to_float(i32x16{total[0][0], total[0][1]}), w.d(0, 0)), *x.scale);
  }

  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int, float* acc, int64_t stride) {
    static_assert(P == 1);
    if constexpr (C == 1) return one_row(w, x, acc);
    alignas(32) int32_t shifted[C][16];
    if constexpr (Bits == 3)
      for (int c = 0; c < C; ++c)
        for (int i = 0; i < 16; i += 8)
          store_si(shifted[c] + i, _mm256_srai_epi16(load_si(x.starts + c * kStarts + i), 3));
    const int32_t* starts = Bits == 3 ? shifted[0] : x.starts;
    constexpr int step = Bits == 3 ? 16 : kStarts;
    column_parts<C>([&]<int c0, int n>() KE_LAMBDA {
      Sums<n> total;
      each<n, 2>([&]<int c, int h>() KE_LAMBDA { total[c][h] = _mm256_setzero_si256(); });
      w.each_sub_block([&](auto i) KE_LAMBDA {
        Sums<n> s;
        each<n>([&]<int c>() KE_LAMBDA { s[c][0] = s[c][1] = broadcast_dword(starts + (c0 + c) * step + i); });
        madd_lines<n, 4, 0, 4>(s, w, i, x.codes + c0 * kBlock + i * 16);
        add_scaled<n>(total, s, w.scale(0, i));
      });
      const f32x16 d = w.d(0, 0);
      each<n>([&]<int c>() KE_LAMBDA {
        const f32x16 v = mul(to_float(i32x16{total[c][0], total[c][1]}), d);
        add_block(acc + (c0 + c) * stride, v, x.scale[c0 + c]);
      });
    });
  }
};

// Blocks of 32 with a float scale, and an offset m where Affine.
template <int Bits, bool Affine>
struct Blocks32 {
  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int values, float* acc, int64_t stride) {
    static_assert(P == 1);
    const i32x16 one = {_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
    column_parts<C>([&]<int c0, int n>() KE_LAMBDA {
      f32x16 v[n];
      each<n>([&]<int c>() KE_LAMBDA { v[c] = zero(); });
      for (int b = 0; b < values / 32; ++b) {
        Sums<n> total;
        each<n>([&]<int c>() KE_LAMBDA {
          const i32x16 start = w.start(x, c0 + c, b, values);
          total[c][0] = start.a, total[c][1] = start.b;
        });
        add_lines<n, 8, Bits == 4 ? 8 : 4>(total, w, b, x.codes + c0 * kBlock + b * 32, one);
        const f32x16 d = w.d(0, b);
        each<n>([&]<int c>() KE_LAMBDA {
          f32x16 t = mul(to_float(i32x16{total[c][0], total[c][1]}), d);
          if constexpr (Affine) t = add(t, mul(to_float(set1(x.sum32[(c0 + c) * 8 + b])), w.m(0, b)));
          v[c] = add(v[c], t);
        });
      }
      each<n>([&]<int c>() KE_LAMBDA { add_block(acc + (c0 + c) * stride, v[c], x.scale[c0 + c]); });
    });
  }
};

// Products of signed codes, stored 128 too high, with codes of x.
struct CodeProducts {
  static constexpr int offset = 0;
  static KE_INLINE u8x64 weights(u8x64 stored) { return stored; }
  static KE_INLINE i32x16 add(i32x16 sum, u8x64 w, const int8_t* x) {
    const __m256i four = broadcast_dword(x);
    add_half(sum.a, w.a, four);
    add_half(sum.b, w.b, four);
    return sum;
  }

 private:
  // s += |q| * (x with the sign of q).
  static KE_INLINE void add_half(__m256i& s, __m256i stored, __m256i x) {
    const __m256i q = _mm256_xor_si256(stored, _mm256_set1_epi8(-128));
    const __m256i products = _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q));
    add_products(s, products, _mm256_set1_epi16(1));
  }
};

// Q8_0: both factors as int16, in the order of even_bytes and odd_bytes.
template <>
struct Blocks32<8, false> {
  // 32 codes: bytes 0 and 2 of every four, then bytes 1 and 3.
  static inline void widen(const int8_t* codes, int32_t* pairs) {
    const __m256i v = load_si(codes);
    store_si(pairs, _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8));
    store_si(pairs + 8, _mm256_srai_epi16(v, 8));
  }

  template <class W>
  static inline void one_row(const W& w, const TileX& x, int values, float* acc) {
    f32x16 v = zero();
    for (int b = 0; b < values / 32; ++b) {
      i32x16 s = set1(0);
      each<8>([&]<int g>() KE_LAMBDA {
        const u8x64 codes = w.codes(0, b, Const<8>(), Const<g>());
        s = CodeProducts::add(s, codes, x.codes + b * 32 + g * 4);
      });
      v = add(v, mul(to_float(s), w.d(0, b)));
    }
    add_block(acc, v, *x.scale);
  }

  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int values, float* acc, int64_t stride) {
    static_assert(P == 1);
    if constexpr (C == 1) return one_row(w, x, values, acc);
    alignas(32) int32_t pairs[C][kBlock / 2];
    alignas(32) float v[C][16];
    for (int c = 0; c < C; ++c) {
      for (int b = 0; b < values / 32; ++b) widen(x.codes + c * kBlock + b * 32, pairs[c] + b * 16);
      store(v[c], zero());
    }
    for (int b = 0; b < values / 32; ++b) {
      Sums<C> s;
      each<C>([&]<int c>() KE_LAMBDA {
        const i32x16 start = w.start(x, c, b, values);
        s[c][0] = start.a, s[c][1] = start.b;
      });
      each<8>([&]<int g>() KE_LAMBDA {
        each<2>([&]<int odd>() KE_LAMBDA {
          asm volatile("" ::: "memory");  // or GCC keeps the codes for the other half, on the stack
          const u8x64 codes = w.codes(0, b, Const<8>(), Const<g>());
          const __m256i w0 = odd ? odd_bytes(codes.a) : even_bytes(codes.a);
          const __m256i w1 = odd ? odd_bytes(codes.b) : even_bytes(codes.b);
          each<C>([&]<int c>() KE_LAMBDA {
            const __m256i two = broadcast_dword(pairs[c] + b * 16 + odd * 8 + g);
            add_products(s[c][0], w0, two);
            add_products(s[c][1], w1, two);
          });
        });
      });
      const f32x16 d = w.d(0, b);
      each<C>([&]<int c>() KE_LAMBDA { store(v[c], add(load(v[c]), mul(to_float(i32x16{s[c][0], s[c][1]}), d))); });
    }
    for (int c = 0; c < C; ++c) add_block(acc + c * stride, load(v[c]), x.scale[c]);
  }
};

}  // namespace
}  // namespace ke::cpu::KE_ISA
