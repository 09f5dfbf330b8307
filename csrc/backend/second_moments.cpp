#include "backend/second_moments.h"

#include <algorithm>
#include <array>

#include "base/wide.h"

namespace ke {

namespace {

constexpr int64_t kAtOnce = 8;     // rows whose products are added in one pass over the sums
constexpr int64_t kStretch = 512;  // columns: kWaiting rows of them stay in the second level of cache

// y0[j] += a[0] x[j] + a[1] x[stride + j] + ..., y1 with b; n values.
KE_ALWAYS_INLINE inline void add_eight(float* __restrict y0, float* __restrict y1, const float* a, const float* b,
                                       const float* __restrict x, int64_t stride, int64_t n) {
  const float *x0 = x, *x1 = x0 + stride, *x2 = x1 + stride, *x3 = x2 + stride;
  const float *x4 = x3 + stride, *x5 = x4 + stride, *x6 = x5 + stride, *x7 = x6 + stride;
  for (int64_t j = 0; j < n; ++j) {
    y0[j] += ((a[0] * x0[j] + a[1] * x1[j]) + (a[2] * x2[j] + a[3] * x3[j])) +
             ((a[4] * x4[j] + a[5] * x5[j]) + (a[6] * x6[j] + a[7] * x7[j]));
    y1[j] += ((b[0] * x0[j] + b[1] * x1[j]) + (b[2] * x2[j] + b[3] * x3[j])) +
             ((b[4] * x4[j] + b[5] * x5[j]) + (b[6] * x6[j] + b[7] * x7[j]));
  }
}

}  // namespace

// Rows are not a power of two apart, so that eight of them do not compete for one place of the cache.
SecondMoments::SecondMoments(int64_t cols)
    : cols_(cols),
      stride_(cols + 16),
      sums_(static_cast<size_t>(cols * cols)),
      rows_(static_cast<size_t>(kWaiting * stride_)) {}

void SecondMoments::add(const float* x, int64_t rows, ThreadPool& pool) {
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(x + r * cols_, cols_, rows_.data() + waiting_ * stride_);
    if (++waiting_ == kWaiting) add_waiting(pool);
  }
}

const std::vector<float>& SecondMoments::sums(ThreadPool& pool) {
  add_waiting(pool);
  return sums_;
}

void SecondMoments::add_waiting(ThreadPool& pool) {
  if (waiting_ == 0) return;
  const int64_t end = (waiting_ + kAtOnce - 1) / kAtOnce * kAtOnce;
  std::fill(rows_.data() + waiting_ * stride_, rows_.data() + end * stride_, 0.f);
  waiting_ = end;
  const int64_t pairs = (cols_ + 1) / 2;
  pool.parallel_for(pairs, 1, [&](int64_t begin, int64_t stop) {
    for (int64_t k = begin; k < stop; ++k) add_waiting_to(2 * (pairs - 1 - k));  // the longest ones first
  });
  waiting_ = 0;
}

// The sums of columns i and i + 1 with those before them.
void SecondMoments::add_waiting_to(int64_t i) {
  const int64_t second = std::min(i + 1, cols_ - 1);
  std::vector<float> unused(second == i ? static_cast<size_t>(cols_) : 0);
  float* y0 = sums_.data() + i * cols_;
  float* y1 = second == i ? unused.data() : y0 + cols_;
  std::array<float, kWaiting> a, b;
  for (int64_t r = 0; r < waiting_; ++r) a[r] = rows_[r * stride_ + i], b[r] = rows_[r * stride_ + second];
  run_wide([&]() KE_ALWAYS_INLINE {
    for (int64_t j = 0; j <= second; j += kStretch)
      for (int64_t r = 0; r < waiting_; r += kAtOnce)
        add_eight(y0 + j, y1 + j, a.data() + r, b.data() + r, rows_.data() + r * stride_ + j, stride_,
                  std::min(kStretch, second + 1 - j));
  });
  if (second != i) y0[second] = 0;  // above the diagonal
}

}  // namespace ke
