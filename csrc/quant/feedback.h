// Rounding with error feedback: the error of each value is made up for by the values of its row that are not rounded
// yet, as far as the inputs of the matrix go together. The method is GPTQ's (Frantar et al., 2022): the columns in
// order, with the Cholesky factor of the inverse of the inputs' second moments. The codes of a block are then improved
// together, one at a time, before their errors are handed on.
#pragma once
#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "quant/dtype.h"

namespace ke {

// The upper triangular U with U^T U = (H + damping * mean(diagonal of H) * 1)^-1.
class FeedbackFactor {
 public:
  // products: (n, n), the sum of x_i x_j for j <= i over `rows` inputs x of n values. sum: of x, (n), or nullptr. With
  // it H is the covariance: for a matrix whose bias will make up for the mean error. Takes 12 n^2 bytes while it runs,
  // 4 n^2 afterwards. pool: its threads share the work. InvalidRequest where a sum is not finite, all are 0, or damping
  // is outside 1e-6..1.
  FeedbackFactor(const float* products, const double* sum, int64_t rows, int64_t n, double damping, ThreadPool& pool);

  int64_t size() const { return n_; }
  const float* row(int64_t i) const { return upper_.data() + i * n_; }

 private:
  int64_t n_;
  std::vector<float> upper_;
};

// As encode() of codec.h with importance, which finds the scales of a block; then the codes with error feedback along
// the row. dtype: has_grid. factor.size() is row_length. Takes about as much memory as the values.
void encode_with_feedback(DType dtype, const float* in, void* blocks, int64_t n, int64_t row_length,
                          const float* importance, const FeedbackFactor& factor);

}  // namespace ke
