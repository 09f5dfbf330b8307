#include "quant/triangular.h"

#include <algorithm>
#include <cmath>

namespace ke {

namespace {

constexpr int64_t kPanel = 64;     // columns, or rows, that are finished together
constexpr int64_t kStretch = 512;  // columns of kPanel rows that stay in the second level of cache

// y -= the sum of factors[k] * x[k * stride ...] for k < count
KE_ALWAYS_INLINE inline void subtract_all(double* y, const double* x, int64_t stride, const double* factors,
                                          int64_t count, int64_t n) {
  int64_t k = 0;
  for (; k + 4 <= count; k += 4) subtract_four(y, x + k * stride, stride, factors + k, n);
  for (; k < count; ++k) subtract(y, x + k * stride, factors[k], n);
}

}  // namespace

// Panels of columns: each is finished, then subtracted from everything behind it.
void cholesky(std::vector<double>& a, int64_t n, ThreadPool& pool) {
  std::vector<double> panel(static_cast<size_t>(kPanel * n));  // columns of L, each contiguous
  for (int64_t p = 0; p < n; p += kPanel) {
    const int64_t end = std::min(n, p + kPanel);
    for (int64_t k = p; k < end; ++k) {
      double* column = panel.data() + (k - p) * n;
      const double pivot = std::sqrt(a[k * n + k]);
      for (int64_t i = k; i < n; ++i) column[i] = i == k ? pivot : a[i * n + k] / pivot;
      for (int64_t i = k; i < n; ++i) {
        a[i * n + k] = column[i];
        subtract(a.data() + i * n + k + 1, column + k + 1, column[i], std::min(end, i + 1) - k - 1);
      }
    }
    const int64_t behind = (n - end + kPanel - 1) / kPanel;
    pool.parallel_for(behind, 1, [&](int64_t first, int64_t last) {
      run_wide([&]() KE_ALWAYS_INLINE {
        const int64_t begin = end + first * kPanel, stop = std::min(n, end + last * kPanel);
        for (int64_t j = end; j < stop; j += kStretch)
          for (int64_t i = std::max(begin, j); i < stop; ++i)
            subtract_all(a.data() + i * n + j, panel.data() + j, n, a.data() + i * n + p, end - p,
                         std::min(j + kStretch, i + 1) - j);
      });
    });
  }
}

// Some rows at a time, from the last ones.
void invert_upper(std::vector<double>& r, int64_t n, ThreadPool& pool) {
  std::vector<double> rows(static_cast<size_t>(std::min(n, kPanel) * n));
  for (int64_t end = n; end > 0; end -= std::min(kPanel, end)) {
    const int64_t begin = std::max<int64_t>(0, end - kPanel);
    for (int64_t i = begin; i < end; ++i) {
      double* row = rows.data() + (i - begin) * n;
      std::fill(row, row + n, 0.0);
      row[i] = 1;
    }
    // Of rows that are inverted already, the last stretches first: they are the longest sums.
    const int64_t stretches = (n - end + kStretch - 1) / kStretch;
    pool.parallel_for(stretches, 1, [&](int64_t first, int64_t last) {
      run_wide([&]() KE_ALWAYS_INLINE {
        for (int64_t s = first; s < last; ++s) {
          const int64_t j = end + (stretches - 1 - s) * kStretch, stop = std::min(n, j + kStretch);
          for (int64_t k = end; k < stop; k += 4)
            for (int64_t i = begin; i < end; ++i)
              subtract_all(rows.data() + (i - begin) * n + j, r.data() + k * n + j, n, r.data() + i * n + k,
                           std::min<int64_t>(4, stop - k), stop - j);
        }
      });
    });
    run_wide([&]() KE_ALWAYS_INLINE {
      for (int64_t i = end - 1; i >= begin; --i) {
        double* row = rows.data() + (i - begin) * n;
        for (int64_t k = end - 1; k > i; --k) subtract(row + k, rows.data() + (k - begin) * n + k, r[i * n + k], n - k);
        for (int64_t j = i; j < n; ++j) row[j] /= r[i * n + i];
      }
    });
    for (int64_t i = begin; i < end; ++i) std::copy_n(rows.data() + (i - begin) * n, n, r.data() + i * n);
  }
}

}  // namespace ke
