#include "quant/feedback.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quant/codec.h"
#include "quant/grid.h"
#include "quant/triangular.h"

namespace ke {

namespace {

// Where later values make up for a block's errors d as well as they can, the error of the products is d S d^T with
// S = (B^T B)^-1, B the block's part of the factor. Going through the values again and again, each takes the code that
// is best while the others stay, which none but the last ones did when they were rounded one after the other.
class BlockRefiner {
 public:
  // Of the values begin .. begin + size - 1.
  BlockRefiner(const FeedbackFactor& factor, int64_t begin, int64_t size, ThreadPool& pool)
      : size_(size), inverse_(static_cast<size_t>(size * size)), moments_(static_cast<size_t>(size * size)) {
    std::vector<double> v(static_cast<size_t>(size * size)), s(static_cast<size_t>(size * size));
    for (int64_t i = 0; i < size; ++i) std::copy_n(factor.row(begin + i) + begin, size, v.data() + i * size);
    invert_upper(v, size, pool);
    std::vector<double> columns(v.size());
    for (int64_t i = 0; i < size; ++i)
      for (int64_t j = 0; j < size; ++j) columns[j * size + i] = v[i * size + j];
    for (int64_t i = 0; i < size; ++i)  // S = V V^T, V = B^-1
      for (int64_t k = i; k < size; ++k)
        subtract(s.data() + i * size, columns.data() + k * size, -v[i * size + k], size);
    for (size_t i = 0; i < v.size(); ++i) {
      inverse_[i] = static_cast<float>(v[i]);
      moments_[i] = static_cast<float>(s[i]);
    }
  }

  // codes: of the values x, improved in place. left: what is left of x; errors: left B^-1, that the later values take.
  void refine(const float* x, const BlockGrid& grid, int8_t* codes, float* left, float* errors) const {
    float slope[kLargestBlock] = {};  // left S
    for (int64_t i = 0; i < size_; ++i) {
      left[i] = x[i] - (grid.step[i] * static_cast<float>(codes[i]) + grid.low[i]);
      subtract(slope, moments_.data() + i * size_, -left[i], size_);
    }
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      bool moved = false;
      for (int64_t i = 0; i < size_; ++i) {
        const float* s = moments_.data() + i * size_;
        if (grid.step[i] == 0) continue;
        const float wanted = static_cast<float>(codes[i]) + slope[i] / (s[i] * grid.step[i]);
        const float code = grid.nearest(wanted);
        const float change = grid.step[i] * (static_cast<float>(codes[i]) - code);  // of `left`
        if (!(change * (2 * slope[i] + change * s[i]) < 0)) continue;
        codes[i] = static_cast<int8_t>(code);
        left[i] = x[i] - (grid.step[i] * code + grid.low[i]);
        subtract(slope, s, -change, size_);
        moved = true;
      }
      if (!moved) break;
    }
    std::fill(errors, errors + size_, 0.0f);
    for (int64_t i = 0; i < size_; ++i) subtract(errors + i, inverse_.data() + i * size_ + i, -left[i], size_ - i);
  }

 private:
  static constexpr int kSweeps = 4;

  int64_t size_;
  std::vector<float> inverse_, moments_;  // B^-1, S
};

}  // namespace

FeedbackFactor::FeedbackFactor(const float* products, const double* sum, int64_t rows, int64_t n, double damping,
                               ThreadPool& pool)
    : n_(n) {
  KE_CHECK(n > 0 && rows > 0, InvalidRequest, "expected inputs, got ", rows, " of ", n, " values");
  KE_CHECK(damping >= 1e-6 && damping <= 1, InvalidRequest, "damping is ", damping, "; expected 1e-6..1");
  // Everything in reverse order: H = R R^T with R upper triangular is a Cholesky factorization from the other end, and
  // U = R^-1.
  std::vector<double> a(static_cast<size_t>(n * n));
  double trace = 0;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      double h = static_cast<double>(products[i * n + j]) / static_cast<double>(rows);
      if (sum) h -= sum[i] / static_cast<double>(rows) * (sum[j] / static_cast<double>(rows));
      KE_CHECK(std::isfinite(h), InvalidRequest, "the product of inputs ", i, " and ", j, " is not finite");
      if (i == j) trace += std::max(h, 0.0);
      a[(n - 1 - j) * n + n - 1 - i] = h;
    }
  KE_CHECK(trace > 0, InvalidRequest, "all inputs are the same");
  const double more = damping * trace / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) a[i * n + i] = std::max(a[i * n + i], 0.0) + more;
  cholesky(a, n, pool);
  for (int64_t i = 0; i < n / 2; ++i)  // R[i][j] = L[n - 1 - i][n - 1 - j]
    for (int64_t j = 0; j < n; ++j) std::swap(a[i * n + j], a[(n - 1 - i) * n + n - 1 - j]);
  if (n % 2) std::reverse(a.data() + n / 2 * n, a.data() + (n / 2 + 1) * n);
  for (int64_t i = 0; i < n; ++i) std::fill(a.data() + i * n, a.data() + i * n + i, 0.0);
  invert_upper(a, n, pool);
  upper_.resize(static_cast<size_t>(n * n));
  for (size_t i = 0; i < upper_.size(); ++i) {
    upper_[i] = static_cast<float>(a[i]);
    KE_CHECK(std::isfinite(upper_[i]), InvalidRequest, "the inputs' second moments cannot be inverted");
  }
}

void encode_with_feedback(DType dtype, const float* in, void* blocks, int64_t n, int64_t row_length,
                          const float* importance, const FeedbackFactor& factor) {
  KE_CHECK(has_grid(dtype), InvalidRequest, "there is no error feedback for ", dtype_info(dtype).name);
  KE_CHECK(factor.size() == row_length, InvalidRequest, "rows have ", row_length, " values, but the inputs ",
           factor.size());
  const int64_t block = dtype_info(dtype).block_elems, block_bytes = dtype_info(dtype).block_bytes;
  const int64_t rows = n / row_length, row_bytes = row_length / block * block_bytes;
  std::vector<uint8_t> plain(static_cast<size_t>(rows * row_bytes));  // checks all arguments
  encode(dtype, in, plain.data(), n, row_length, importance);

  std::vector<float> targets(in, in + n), errors(static_cast<size_t>(rows * block));
  ThreadPool alone(1);
  constexpr int64_t stretch = 512;  // columns whose part of the factor stays in the cache for all rows
  for (int64_t begin = 0; begin < row_length; begin += block) {
    const BlockRefiner refiner(factor, begin, block, alone);
    for (int64_t r = 0; r < rows; ++r) {
      const float* x = targets.data() + r * row_length + begin;
      uint8_t* to = static_cast<uint8_t*>(blocks) + r * row_bytes + begin / block * block_bytes;
      encode(dtype, x, to, block, block, importance ? importance + begin : nullptr);
      BlockGrid grid;
      read_grid(dtype, to, grid);
      int8_t codes[kLargestBlock];
      float left[kLargestBlock];
      std::copy_n(x, block, left);
      for (int64_t i = 0; i < block; ++i) {
        const float exact = grid.step[i] == 0 ? 0.0f : (left[i] - grid.low[i]) / grid.step[i];
        const float code = grid.nearest(exact);
        codes[i] = static_cast<int8_t>(code);
        const float* u = factor.row(begin + i) + begin;
        const float error = (left[i] - (grid.step[i] * code + grid.low[i])) / u[i];
        subtract(left + i + 1, u + i + 1, error, block - i - 1);
      }
      refiner.refine(x, grid, codes, left, errors.data() + r * block);
      store_codes(dtype, codes, to);
    }
    for (int64_t from = begin + block; from < row_length; from += stretch) {
      const int64_t count = std::min(stretch, row_length - from);
      run_wide([&]() KE_ALWAYS_INLINE {
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t i = 0; i < block; i += 4)
            subtract_four(targets.data() + r * row_length + from, factor.row(begin + i) + from, row_length,
                          errors.data() + r * block + i, count);
      });
    }
  }
}

}  // namespace ke
