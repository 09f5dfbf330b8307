// Launches of the attentions.
#include "cuda/kernels.h"

#include "cuda/attention.cuh"

namespace ke::cuda {

cudaError_t launch_kv_write(cudaStream_t stream, const Matrix& k, const Matrix& v, const DevicePosition* positions,
                            const CacheShape& shape) {
  const auto kernel = shape.type == CacheType::Q8_0  ? kv_write_kernel<CacheType::Q8_0>
                      : shape.type == CacheType::F16 ? kv_write_kernel<CacheType::F16>
                                                     : kv_write_kernel<CacheType::F32>;
  return launch(stream, kernel, dim3{up(k.rows, 1), 1, 1}, kThreads, 0, k, v, positions, shape);
}

cudaError_t launch_kv_attention(cudaStream_t stream, const Matrix& q, const DevicePosition* positions,
                                const CacheShape& shape, float scale, int64_t longest, const BiasTable& bias,
                                const Matrix& out) {
  const auto kernel = shape.type == CacheType::Q8_0  ? kv_attention_kernel<CacheType::Q8_0>
                      : shape.type == CacheType::F16 ? kv_attention_kernel<CacheType::F16>
                                                     : kv_attention_kernel<CacheType::F32>;
  return launch(stream, kernel, dim3{up(shape.heads * shape.group, 1), up(q.rows, 1), 1}, kThreads,
                sizeof(float) * longest, q, positions, shape, scale, bias, out);
}

// How many positions fit the shared memory that every device has.
static int64_t positions_for(int64_t dims, int warp_queries) {
  const size_t shared = 46 << 10, fixed = attention_shared_bytes(dims, 0, warp_queries);
  if (fixed > shared) return 0;
  return static_cast<int64_t>((shared - fixed) / (attention_shared_bytes(dims, 1, warp_queries) - fixed));
}

int64_t attention_positions(int64_t dims) { return positions_for(dims, 1); }

cudaError_t launch_attention(cudaStream_t stream, const Matrix& q, const Matrix& k, const Matrix& v, int64_t heads,
                             float scale, const BiasTable& bias, const Matrix& out) {
  const int64_t dims = q.cols / heads, group = q.cols / k.cols;
  const int queries = k.rows <= positions_for(dims, kWarpQueries) ? kWarpQueries : 1;
  return launch(stream, queries == 1 ? attention_kernel<1> : attention_kernel<kWarpQueries>,
                dim3{up(q.rows, kWarps * queries), up(heads, 1), 1}, kThreads,
                attention_shared_bytes(dims, k.rows, queries), q, k, v, dims, group, scale, bias, out);
}

}  // namespace ke::cuda
