// The vector vocabulary in AVX2 + AVX-VNNI: what vec_avx2.h has, and the four-product dot on 256 bits.
#pragma once
#include "cpu/vec_avx2.h"

namespace ke::cpu::KE_ISA {
namespace {

inline i32x16 scale_lanes(i32x16 x) { return x; }
constexpr int kShortScaleUnit = 256;
// In the low 16 bits of their lanes: a scale above a byte of zeros.
inline i32x16 load_short_scales(const int8_t* p) {
  const __m256i all = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i first = _mm256_setr_epi8(-1, 0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, 3, -1, -1,  //
                                         -1, 4, -1, -1, -1, 5, -1, -1, -1, 6, -1, -1, -1, 7, -1, -1);
  const __m256i last = _mm256_setr_epi8(-1, 8, -1, -1, -1, 9, -1, -1, -1, 10, -1, -1, -1, 11, -1, -1,  //
                                        -1, 12, -1, -1, -1, 13, -1, -1, -1, 14, -1, -1, -1, 15, -1, -1);
  return {_mm256_shuffle_epi8(all, first), _mm256_shuffle_epi8(all, last)};
}
inline i32x16 add_short_products(i32x16 acc, i32x16 a, i32x16 scale) {
  return {_mm256_dpwssd_avx_epi32(acc.a, a.a, scale.a), _mm256_dpwssd_avx_epi32(acc.b, a.b, scale.b)};
}
inline i32x16 dot4(i32x16 acc, u8x64 w, const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  const __m256i b = _mm256_set1_epi32(four);
  acc = {_mm256_dpbusd_avx_epi32(acc.a, w.a, b), _mm256_dpbusd_avx_epi32(acc.b, w.b, b)};
  asm volatile("" : "+x"(acc.a), "+x"(acc.b));  // keeps GCC from loading many lines ahead, which costs it registers
  return acc;
}

}  // namespace
}  // namespace ke::cpu::KE_ISA
