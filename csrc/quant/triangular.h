// Cholesky factors and triangular inverses, in float64. Every value is computed in a fixed order: the bits do not
// depend on the width of the machine's vectors.
#pragma once
#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "base/wide.h"

namespace ke {

// y -= factor * x
template <class T>
KE_ALWAYS_INLINE inline void subtract(T* y, const T* x, T factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] -= factor * x[i];
}

// y -= the sum of factors[k] * x[k * stride ...] for k < 4
template <class T>
KE_ALWAYS_INLINE inline void subtract_four(T* __restrict y, const T* __restrict x, int64_t stride, const T* factors,
                                           int64_t n) {
  const T a = factors[0], b = factors[1], c = factors[2], d = factors[3];
  const T *x1 = x + stride, *x2 = x1 + stride, *x3 = x2 + stride;
  for (int64_t i = 0; i < n; ++i) y[i] -= (a * x[i] + b * x1[i]) + (c * x2[i] + d * x3[i]);
}

// a (n, n), lower triangle -> its Cholesky factor L in place, a = L L^T.
void cholesky(std::vector<double>& a, int64_t n, ThreadPool& pool);

// r (n, n), upper triangular with zeros below -> its inverse in place.
void invert_upper(std::vector<double>& r, int64_t n, ThreadPool& pool);

}  // namespace ke
