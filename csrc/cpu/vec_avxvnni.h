// The vector vocabulary in AVX2 + AVX-VNNI: what vec_avx2.h has, and the four-product dot on 256 bits.
#pragma once
#include "cpu/vec_avx2.h"

namespace ke::cpu::KE_ISA {
namespace {

inline i32x16 scale_lanes(i32x16 x) { return x; }
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
