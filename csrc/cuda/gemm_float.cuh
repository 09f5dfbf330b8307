// GEMM with float weights: y = act(x W^T + b) + residual, in float32 and in the order of csrc/cpu/linear_float.inl:
// chunks of 128 products, each summed value by value, then the chunks' sums in order. Eight lanes share an output, a
// chunk each.
#pragma once
#include "cuda/rows.cuh"

namespace ke::cuda {

constexpr int kGroup = 8;                        // values: 16 bytes of 16-bit weights, 32 of float32
constexpr int kChunk = 128;                      // values
constexpr int kChunkLanes = 8;                   // lanes that share an output
constexpr int kFloatOutputs = 32 / kChunkLanes;  // per warp

template <FloatType T>
__device__ __forceinline__ void load_group(const void* weights, int64_t at, float (&out)[kGroup]) {
  if constexpr (T == FloatType::F32) {
    const float4* p = reinterpret_cast<const float4*>(static_cast<const float*>(weights) + at);
    const float4 a = p[0], b = p[1];
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
  } else {
    const uint4 v = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(weights) + at);
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < kGroup; i++) {
      const uint16_t bits = static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16));
      out[i] = T == FloatType::F16 ? from_half(bits) : __uint_as_float(static_cast<uint32_t>(bits) << 16);
    }
  }
}

// kRows rows of x from blockIdx.y * kRows on. aligned: rows of x begin at multiples of 16 bytes.
template <FloatType T, int kRows>
__global__ void __launch_bounds__(kThreads)
    gemm_float_kernel(FloatWeights w, Matrix x, bool aligned, Epilogue epilogue) {
  const int lane = threadIdx.x % 32, share = lane % kChunkLanes, leader = lane - share;
  const int64_t output = (int64_t{blockIdx.x} * kWarps + threadIdx.x / 32) * kFloatOutputs + lane / kChunkLanes;
  const int64_t stored = output < w.rows ? output : w.rows - 1;  // those behind the last are computed and dropped
  const int64_t first_row = int64_t{blockIdx.y} * kRows, chunks = (w.cols + kChunk - 1) / kChunk;
  float total[kRows] = {};
  for (int64_t round = 0; round < chunks; round += kChunkLanes) {
    const int64_t begin = (round + share) * kChunk, end = begin + kChunk < w.cols ? begin + kChunk : w.cols;
    float sum[kRows] = {};
    for (int64_t k = begin; k < end; k += kGroup) {
      float weights[kGroup];
      load_group<T>(w.data, stored * w.stride + k, weights);
#pragma unroll
      for (int r = 0; r < kRows; r++) {
        if (first_row + r >= x.rows) continue;
        const float* row = x.data + (first_row + r) * x.stride + k;
        float values[kGroup];
        if (aligned && k + kGroup <= w.cols) {
          load_group<FloatType::F32>(row, 0, values);
        } else {
#pragma unroll
          for (int i = 0; i < kGroup; i++) values[i] = k + i < w.cols ? row[i] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < kGroup; i++) sum[r] = __fmaf_rn(weights[i], values[i], sum[r]);
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; r++)
#pragma unroll
      for (int c = 0; c < kChunkLanes; c++) {
        const float next = __shfl_sync(0xffffffffu, sum[r], leader + c);
        if (round + c < chunks) total[r] = round + c == 0 ? next : __fadd_rn(total[r], next);
      }
  }
#pragma unroll
  for (int r = 0; r < kRows; r++)
    if (share == r % kChunkLanes && output < w.rows && first_row + r < x.rows)
      finish(epilogue, total[r], first_row + r, output);
}

}  // namespace ke::cuda
