// IQ4_NL and IQ4_XS beside quant_madd.inl: codes are the table's values, signed. Their magnitudes meet activations that
// took the signs: a pair of products is at most 2 * 127 * 127 = 32258 and just fits an int16, so each is multiplied by
// the sub-block's integer scale (or by 1) at once.
#pragma once
#include "cpu/quant_madd.inl"

namespace ke::cpu::KE_ISA {
namespace {

// total += the products with the 8 lines of sub-block (or block of 32) i.
template <int C, class W, class I>
KE_INLINE void add_table_lines(Sums<C>& total, const W& w, I i, const int8_t* x, i32x16 scale) {
  each<8>([&]<int g>() KE_LAMBDA {
    const u8x64 v = w.codes(0, i, Const<8>(), Const<g>());
    const __m256i a = _mm256_abs_epi8(v.a), b = _mm256_abs_epi8(v.b);
    each<C>([&]<int c>() KE_LAMBDA {
      const __m256i four = broadcast_dword(x + c * kBlock + g * 4);
      add_products(total[c][0], _mm256_maddubs_epi16(a, _mm256_sign_epi8(four, v.a)), scale.a);
      add_products(total[c][1], _mm256_maddubs_epi16(b, _mm256_sign_epi8(four, v.b)), scale.b);
    });
    asm volatile("" ::: "memory");  // or GCC keeps lines for a later use of the same bytes, on the stack
  });
}

// IQ4_XS.
struct TableSubBlocks32 {
  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int, float* acc, int64_t stride) {
    static_assert(P == 1);
    column_parts<C>([&]<int c0, int n>() KE_LAMBDA {
      Sums<n> total;
      each<n, 2>([&]<int c, int h>() KE_LAMBDA { total[c][h] = _mm256_setzero_si256(); });
      w.each_sub_block(
          [&](auto i) KE_LAMBDA { add_table_lines<n>(total, w, i, x.codes + c0 * kBlock + i * 32, w.scale(0, i)); });
      const f32x16 d = w.d(0, 0);
      each<n>([&]<int c>() KE_LAMBDA {
        const f32x16 v = mul(to_float(i32x16{total[c][0], total[c][1]}), d);
        add_block(acc + (c0 + c) * stride, v, x.scale[c0 + c]);
      });
    });
  }
};

// IQ4_NL.
struct TableBlocks32 {
  template <int P, int C, class W>
  static inline void tile(const W& w, const TileX& x, int values, float* acc, int64_t stride) {
    static_assert(P == 1);
    const i32x16 one = {_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
    column_parts<C>([&]<int c0, int n>() KE_LAMBDA {
      f32x16 v[n];
      each<n>([&]<int c>() KE_LAMBDA { v[c] = zero(); });
      for (int b = 0; b < values / 32; ++b) {
        Sums<n> total;
        each<n, 2>([&]<int c, int h>() KE_LAMBDA { total[c][h] = _mm256_setzero_si256(); });
        add_table_lines<n>(total, w, b, x.codes + c0 * kBlock + b * 32, one);
        const f32x16 d = w.d(0, b);
        each<n>([&]<int c>() KE_LAMBDA { v[c] = add(v[c], mul(to_float(i32x16{total[c][0], total[c][1]}), d)); });
      }
      each<n>([&]<int c>() KE_LAMBDA { add_block(acc + (c0 + c) * stride, v[c], x.scale[c0 + c]); });
    });
  }
};

}  // namespace
}  // namespace ke::cpu::KE_ISA
