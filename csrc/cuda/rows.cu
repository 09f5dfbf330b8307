// Launches of operations on rows.
#include "cuda/kernels.h"

#include "cuda/row_kernels.cuh"

namespace ke::cuda {

cudaError_t launch_quantize(cudaStream_t stream, const Matrix& x, const NormWeights& norm, const Codes& out) {
  return launch(stream, quantize_kernel, dim3{up(x.rows, 1), 1, 1}, kThreads, 0, x, norm, out);
}

cudaError_t launch_norm(cudaStream_t stream, const Matrix& x, const NormWeights& norm, const Matrix& y) {
  return launch(stream, norm_kernel, dim3{up(x.rows, 1), 1, 1}, kThreads, 0, x, norm, y);
}

cudaError_t launch_l2_normalize(cudaStream_t stream, const Matrix& x, float eps) {
  return launch(stream, l2_normalize_kernel, dim3{up(x.rows, 1), 1, 1}, kThreads, 0, x, eps);
}

cudaError_t launch_add(cudaStream_t stream, const Matrix& x, const Matrix& y) {
  return launch(stream, add_kernel, dim3{up(x.rows, 1), 1, 1}, kThreads, 0, x, y);
}

cudaError_t launch_add_scaled(cudaStream_t stream, const Matrix& x, float factor, const Matrix& y) {
  return launch(stream, add_scaled_kernel, dim3{up(x.rows, 1), 1, 1}, kThreads, 0, x, factor, y);
}

cudaError_t launch_scale(cudaStream_t stream, const Matrix& x, float factor, const Matrix& y) {
  return launch(stream, scale_kernel, dim3{up(x.rows, 1), 1, 1}, kThreads, 0, x, factor, y);
}

cudaError_t launch_gate(cudaStream_t stream, const Matrix& gate, Act act, const Matrix& up_half, const Matrix& y) {
  return launch(stream, gate_kernel, dim3{up(y.rows, 1), 1, 1}, kThreads, 0, gate, act, up_half, y);
}

cudaError_t launch_rope(cudaStream_t stream, const Matrix& x, int64_t heads, const RopeTable& rope,
                        const DevicePosition* positions) {
  return launch(stream, rope_kernel, dim3{up(x.rows, 1), 1, 1}, kThreads, 0, x, heads, rope, positions);
}

cudaError_t launch_gather_columns(cudaStream_t stream, const Matrix& x, const int32_t* columns, const Matrix& y) {
  return launch(stream, gather_columns_kernel, dim3{up(x.rows, 1), 1, 1}, kThreads, 0, x, columns, y);
}

}  // namespace ke::cuda
