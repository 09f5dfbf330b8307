// Kernels of operations on rows: one block of the launch per row in all of them.
#pragma once
#include "cuda/rows.cuh"

namespace ke::cuda {

__global__ void __launch_bounds__(kThreads) quantize_kernel(Matrix x, NormWeights norm, Codes out) {
  KE_SHARED(Partial, partial);
  const int64_t r = blockIdx.x, blocks = x.cols / kBlock;
  quantize_row(x.data + r * x.stride, blocks, norm, partial, out.codes + r * x.cols, kBlock, out.scales + r * blocks,
               out.sums + r * blocks * 16);
}

__global__ void __launch_bounds__(kThreads) layer_norm_kernel(Matrix x, NormWeights norm, Matrix y) {
  KE_SHARED(Partial, partial);
  const float* from = x.data + blockIdx.x * x.stride;
  float* to = y.data + blockIdx.x * y.stride;
  const Statistics s = row_statistics(from, x.cols, norm.eps, partial);
  for (int64_t i = threadIdx.x; i < x.cols; i += kThreads) to[i] = normalised(from[i], s, norm.gamma[i], norm.beta[i]);
}

__global__ void __launch_bounds__(kThreads) l2_normalize_kernel(Matrix x, float eps) {
  KE_SHARED(Partial, partial);
  float* row = x.data + blockIdx.x * x.stride;
  const float length = __fsqrt_rn(row_sum(row, x.cols, partial, [](float v) { return __fmul_rn(v, v); }));
  const float scale = __fdiv_rn(1.0f, length > eps ? length : eps);
  for (int64_t i = threadIdx.x; i < x.cols; i += kThreads) row[i] = __fmul_rn(row[i], scale);
}

__global__ void __launch_bounds__(kThreads) add_kernel(Matrix x, Matrix y) {
  const float* from = x.data + blockIdx.x * x.stride;
  float* to = y.data + blockIdx.x * y.stride;
  for (int64_t i = threadIdx.x; i < x.cols; i += kThreads) to[i] = __fadd_rn(to[i], from[i]);
}

__global__ void __launch_bounds__(kThreads) gather_columns_kernel(Matrix x, const int32_t* columns, Matrix y) {
  for (int64_t i = threadIdx.x; i < y.cols; i += kThreads)
    y.data[blockIdx.x * y.stride + i] = x.data[blockIdx.x * x.stride + columns[i]];
}

}  // namespace ke::cuda
