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

__global__ void __launch_bounds__(kThreads) norm_kernel(Matrix x, NormWeights norm, Matrix y) {
  KE_SHARED(Partial, partial);
  const float* from = x.data + blockIdx.x * x.stride;
  float* to = y.data + blockIdx.x * y.stride;
  const Statistics s = row_statistics(from, x.cols, norm, partial);
  for (int64_t i = threadIdx.x; i < x.cols; i += kThreads) to[i] = normalised(from[i], s, norm, i);
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

__global__ void __launch_bounds__(kThreads) add_scaled_kernel(Matrix x, float factor, Matrix y) {
  const float* from = x.data + blockIdx.x * x.stride;
  float* to = y.data + blockIdx.x * y.stride;
  for (int64_t i = threadIdx.x; i < x.cols; i += kThreads) to[i] = __fadd_rn(to[i], __fmul_rn(factor, from[i]));
}

__global__ void __launch_bounds__(kThreads) scale_kernel(Matrix x, float factor, Matrix y) {
  for (int64_t i = threadIdx.x; i < x.cols; i += kThreads)
    y.data[blockIdx.x * y.stride + i] = __fmul_rn(factor, x.data[blockIdx.x * x.stride + i]);
}

__global__ void __launch_bounds__(kThreads) gate_kernel(Matrix gate, Act act, Matrix up, Matrix y) {
  for (int64_t i = threadIdx.x; i < y.cols; i += kThreads)
    y.data[blockIdx.x * y.stride + i] =
        __fmul_rn(activate(gate.data[blockIdx.x * gate.stride + i], act), up.data[blockIdx.x * up.stride + i]);
}

__global__ void __launch_bounds__(kThreads)
    rope_kernel(Matrix x, int64_t heads, RopeTable rope, const DevicePosition* positions) {
  const int64_t half = rope.dims / 2, head_dim = x.cols / heads;
  const float* turn = rope.table + positions[blockIdx.x].position * rope.dims;
  for (int64_t i = threadIdx.x; i < heads * half; i += kThreads) {
    float* head = x.data + blockIdx.x * x.stride + i / half * head_dim;
    const int64_t pair = i % half, at = rope.interleaved ? 2 * pair : pair, step = rope.interleaved ? 1 : half;
    const float a = head[at], b = head[at + step], c = turn[pair], s = turn[half + pair];
    head[at] = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
    head[at + step] = __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s));
  }
}

__global__ void __launch_bounds__(kThreads) gather_columns_kernel(Matrix x, const int32_t* columns, Matrix y) {
  for (int64_t i = threadIdx.x; i < y.cols; i += kThreads)
    y.data[blockIdx.x * y.stride + i] = x.data[blockIdx.x * x.stride + columns[i]];
}

}  // namespace ke::cuda
