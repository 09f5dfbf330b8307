// Four float32 side by side, written with the vector extension of GCC and Clang, so that the encoders' searches run
// four sub-blocks at once on any machine with 128-bit vectors. Every lane does the same operations in the same order:
// results do not depend on the machine.
#pragma once
#include <cstdint>

namespace ke {

typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));  // of a comparison: -1 true, 0 false

inline F4 splat(float v) { return F4{v, v, v, v}; }
inline F4 lanes_min(F4 a, F4 b) { return a < b ? a : b; }  // b when either is NaN
inline F4 lanes_max(F4 a, F4 b) { return a > b ? a : b; }  // b when either is NaN
inline F4 lanes_abs(F4 a) { return lanes_max(a, -a); }
inline F4 pick(I4 condition, F4 yes, F4 no) { return condition ? yes : no; }

// 1 / a, and 0 where a is 0.
inline F4 reciprocal(F4 a) { return pick(a != splat(0), splat(1) / a, splat(0)); }

// a / b, and 0 where b is not positive.
inline F4 ratio(F4 a, F4 b) { return pick(b > splat(0), a / b, splat(0)); }

// The nearest integer, ties to even, within low..high. Adding 1.5 * 2^23 leaves no bits for a fraction; beyond +-2^22
// the result is inexact, but still outside any range of codes.
inline F4 nearest_code(F4 a, F4 low, F4 high) {
  const F4 magic = splat(12582912.f);
  return lanes_min(lanes_max((a + magic) - magic, low), high);
}

inline float lanes_sum(F4 a) { return (a[0] + a[1]) + (a[2] + a[3]); }

}  // namespace ke
