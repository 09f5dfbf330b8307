// Fused operations for devices that do not have their own.
#include "backend/backend.h"

namespace ke {

void Backend::norm_linear(Mat x, const Norm& norm, const Linear& w, Activation act, Mat residual, Mat scratch, Mat y) {
  const Mat normed(scratch.data, x.rows, x.cols, scratch.stride);
  layer_norm(x, norm, normed);
  linear(w, normed, act, residual, y);
}

void Backend::norm_linear_rows(Mat x, const Norm& norm, const Linear& w, std::span<const int32_t> outputs, Mat scratch,
                               Mat y) {
  const std::unique_ptr<Buffer> all = alloc(x.rows * w.out);
  const Mat columns(*all, x.rows, w.out);
  norm_linear(x, norm, w, Activation::None, {}, scratch, columns);
  for (size_t i = 0; i < outputs.size(); i++) {
    const int64_t from = outputs[i], to = static_cast<int64_t>(i);
    copy(columns.col_range(from, from + 1), y.col_range(to, to + 1));
  }
}

}  // namespace ke
