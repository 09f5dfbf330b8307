// What all units of kernels start from (units/*.cpp; each is compiled once per instruction set): the instruction set's
// header, which names its namespace KE_ISA and has its vector vocabulary, and loops over constants.
#pragma once
#include KE_ISA_HEADER
#include "cpu/kernels.h"
#include "cpu/panels.h"

#define KE_LAMBDA __attribute__((always_inline))

namespace ke::cpu::KE_ISA {
namespace {

// Calls f<0>() ... f<N - 1>(). Loops over accumulators are written so, not as `for`: an array that is only ever indexed
// by constants lives in registers, and GCC does not unroll long loop bodies in time to see that.
template <int N, class F>
KE_INLINE void each(F f) {
  if constexpr (N > 0) {
    each<N - 1>(f);
    f.template operator()<N - 1>();
  }
}

// Calls f<c, p>() for c < C, p < P, p fastest.
template <int C, int P, class F>
KE_INLINE void each(F f) {
  each<C>([&]<int c>() KE_LAMBDA { each<P>([&]<int p>() KE_LAMBDA { f.template operator()<c, p>(); }); });
}

// Calls f<C>() with C = cols, 1 <= cols <= Most.
template <int Most, int C = 1, class F>
inline void for_columns(int cols, const F& f) {
  if constexpr (C < Most) {
    if (cols != C) return for_columns<Most, C + 1>(cols, f);
  }
  f.template operator()<C>();
}

}  // namespace
}  // namespace ke::cpu::KE_ISA
