// Fused operations for devices that do not have their own.
#include "backend/backend.h"

namespace ke {

void Backend::norm_linear(Mat x, const Norm& norm, const Linear& w, Activation act, Mat residual, Mat scratch, Mat y) {
  const Mat normed(scratch.data, x.rows, x.cols, scratch.stride);
  layer_norm(x, norm, normed);
  linear(w, normed, act, residual, y);
}

}  // namespace ke
