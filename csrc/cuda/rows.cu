// Launches of operations on rows.
#include "cuda/kernels.h"

#include "cuda/row_kernels.cuh"

namespace ke::cuda {

cudaError_t launch_quantize(cudaStream_t stream, const Matrix& x, const NormWeights& norm, const Codes& out) {
  return launch(stream, quantize_kernel, dim3{up(x.rows, 1), 1, 1}, kThreads, 0, x, norm, out);
}

cudaError_t launch_layer_norm(cudaStream_t stream, const Matrix& x, const NormWeights& norm, const Matrix& y) {
  return launch(stream, layer_norm_kernel, dim3{up(x.rows, 1), 1, 1}, kThreads, 0, x, norm, y);
}

cudaError_t launch_l2_normalize(cudaStream_t stream, const Matrix& x, float eps) {
  return launch(stream, l2_normalize_kernel, dim3{up(x.rows, 1), 1, 1}, kThreads, 0, x, eps);
}

cudaError_t launch_add(cudaStream_t stream, const Matrix& x, const Matrix& y) {
  return launch(stream, add_kernel, dim3{up(x.rows, 1), 1, 1}, kThreads, 0, x, y);
}

cudaError_t launch_gather_columns(cudaStream_t stream, const Matrix& x, const int32_t* columns, const Matrix& y) {
  return launch(stream, gather_columns_kernel, dim3{up(x.rows, 1), 1, 1}, kThreads, 0, x, columns, y);
}

}  // namespace ke::cuda
