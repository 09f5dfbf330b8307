// Reductions over rows, normalisation, activations, and the quantization of activations.
#pragma once
#include "cuda/device.cuh"
#include "cuda/kernels.h"

namespace ke::cuda {

constexpr int kThreads = 128;  // of every block here: sums depend on it, so all kernels that share a sum agree
constexpr int kWarps = kThreads / 32;
using Partial = float[20];  // shared memory of a block's sums

// Sums of rows go in the order that csrc/cpu/elementwise.inl has: 64 partial sums of every 64th value, whole vectors of
// 16 left over onto the first 16, then pairwise, then what is left value by value. Answers are the processor's, to the
// bit, where it has fused multiply-adds.

// The 16 lanes from a multiple of 16 on, added pairwise; the same bits in all of them.
__device__ __forceinline__ float sum_of_16(float x) {
#pragma unroll
  for (int lanes = 8; lanes > 0; lanes /= 2) x = __fadd_rn(x, __shfl_xor_sync(0xffffffffu, x, lanes));
  return x;
}

// The sum of f(x[i]) over a row of n; the same bits in every thread of the block.
template <class F>
__device__ __forceinline__ float row_sum(const float* x, int64_t n, float* partial, F f) {
  const int thread = threadIdx.x;
  const int64_t whole = n / 64 * 64, vectors = n / 16 * 16;
  float sum = 0;
  if (thread < 64)
    for (int64_t i = thread; i < whole; i += 64) sum = __fadd_rn(sum, f(x[i]));
  if (thread < 16)
    for (int64_t i = whole + thread; i < vectors; i += 16) sum = __fadd_rn(sum, f(x[i]));
  sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, 16));  // of 64: 0 + 1 and 2 + 3
  __syncthreads();
  if (thread >= 32 && thread < 48) partial[thread - 32] = sum;
  __syncthreads();
  if (thread < 32) {
    sum = sum_of_16(__fadd_rn(sum, partial[thread % 16]));
    if (thread == 0) {
      float rest = 0;
      for (int64_t i = vectors; i < n; i++) rest = __fadd_rn(rest, f(x[i]));
      partial[16] = __fadd_rn(sum, rest);
    }
  }
  __syncthreads();
  return partial[16];
}

// The largest over the block, in every thread. `partial`: shared, free to use again after a barrier.
__device__ __forceinline__ float block_max(float x, float* partial) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lanes));
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  x = partial[0];
  for (int w = 1; w < kWarps; w++) x = fmaxf(x, partial[w]);
  return x;
}

struct Statistics {
  float mean, scale;  // (x - mean) * scale
};

// Two passes: the mean, then the mean square of the differences from it. To Rms the mean is 0.
__device__ __forceinline__ Statistics row_statistics(const float* x, int64_t n, const NormWeights& norm,
                                                     float* partial) {
  const float mean =
      norm.rms ? 0.0f : __fdiv_rn(row_sum(x, n, partial, [](float v) { return v; }), static_cast<float>(n));
  const float square = row_sum(x, n, partial, [mean](float v) {
    const float d = __fsub_rn(v, mean);
    return __fmul_rn(d, d);
  });
  const float variance = __fdiv_rn(square, static_cast<float>(n));
  return {mean, __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(variance, norm.eps)))};
}

// Value i of the row.
__device__ __forceinline__ float normalised(float x, const Statistics& s, const NormWeights& norm, int64_t i) {
  return __fmaf_rn(__fmul_rn(__fsub_rn(x, s.mean), s.scale), norm.gamma[i], norm.beta ? norm.beta[i] : 0.0f);
}

// The exponential and the activations of csrc/cpu/elementwise.inl, step by step.
__device__ __forceinline__ float exponential(float x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  const float low = x > 88.0f ? 88.0f : x, z = low < -87.3f ? -87.3f : low;
  const float t = __fmaf_rn(z, 1.44269504088896f, magic);
  const float n = __fsub_rn(t, magic);
  float r = __fmaf_rn(n, -0.693359375f, z);
  r = __fmaf_rn(n, 2.12194440054690e-4f, r);
  float p = 1.3836737974057e-3f;
  p = __fmaf_rn(p, r, 8.3748983408685e-3f);
  p = __fmaf_rn(p, r, 4.1668231874036e-2f);
  p = __fmaf_rn(p, r, 1.6666419190680e-1f);
  p = __fmaf_rn(p, r, 4.9999992031996e-1f);
  p = __fmaf_rn(p, r, 1.0000000365390f);
  p = __fmaf_rn(p, r, 1.0000000005586f);
  const float y = __uint_as_float(__float_as_uint(p) + (__float_as_uint(t) << 23));
  return x < -87.3f ? 0.0f : y;
}

__device__ __forceinline__ float gelu_erf(float x) {
  const float product = __fmul_rn(fabsf(x), 0.70710678118655f), z = product > 5.4f ? 5.4f : product;
  float p = -2.796828036959e-7f;
  p = __fmaf_rn(p, z, 7.09528517614768e-6f);
  p = __fmaf_rn(p, z, -7.52248738437881e-5f);
  p = __fmaf_rn(p, z, 4.20005372581603e-4f);
  p = __fmaf_rn(p, z, -1.15045365388436e-3f);
  p = __fmaf_rn(p, z, -5.2340748886853e-4f);
  p = __fmaf_rn(p, z, 1.9653656951818e-2f);
  p = __fmaf_rn(p, z, -1.02970536129986e-1f);
  p = __fmaf_rn(p, z, -6.36585308098536e-1f);
  p = __fmaf_rn(p, z, -1.12838112440037f);
  const float e = exponential(__fmul_rn(p, z));
  return __fmul_rn(__fmul_rn(x, 0.5f), x < 0 ? e : __fsub_rn(2.0f, e));
}

__device__ __forceinline__ float gelu_tanh(float x) {
  const float minus_2u = __fmul_rn(__fmul_rn(x, -1.5957691216057f), __fmaf_rn(__fmul_rn(x, x), 0.044715f, 1.0f));
  return __fdiv_rn(x, __fadd_rn(1.0f, exponential(minus_2u)));
}

__device__ __forceinline__ float activate(float x, Act act) {
  switch (act) {
    case Act::GeluErf:
      return gelu_erf(x);
    case Act::QuickGelu:
      return __fdiv_rn(x, __fadd_rn(1.0f, exponential(__fmul_rn(x, -1.702f))));
    case Act::Relu:
      return x < 0 ? 0.0f : x;
    case Act::GeluTanh:
      return gelu_tanh(x);
    case Act::Silu:
      return __fdiv_rn(x, __fadd_rn(1.0f, exponential(__fsub_rn(0.0f, x))));
    default:
      return x;
  }
}

__device__ __forceinline__ void finish(const Epilogue& e, float sum, int64_t row, int64_t output) {
  if (e.bias) sum = __fadd_rn(sum, e.bias[output]);
  sum = activate(sum, e.act);
  if (e.residual) sum = __fadd_rn(sum, e.residual[row * e.residual_stride + output]);
  e.y[row * e.y_stride + output] = sum;
}

// One row of x, normalised if norm.gamma, as codes. Block b's 256 codes go to codes + b * codes_stride (8-byte
// aligned), its scale to scales[b], its 16 bytes of sums to sums + 16 b. All threads of the block take part.
__device__ __forceinline__ void quantize_row(const float* x, int64_t blocks, const NormWeights& norm, float* partial,
                                             int8_t* codes, int64_t codes_stride, float* scales, int8_t* sums) {
  Statistics s{0, 1};
  if (norm.gamma) s = row_statistics(x, blocks * kBlock, norm, partial);
  const int lane = threadIdx.x % 32;
  for (int64_t b = threadIdx.x / 32; b < blocks; b += kWarps) {
    const int64_t first = b * kBlock + 8 * lane;  // a lane has eight values in a row
    float v[8];
    uint32_t top = 0;  // magnitudes compare like the integers of their bits, NaN above all
    for (int i = 0; i < 8; i++) {
      v[i] = x[first + i];
      if (norm.gamma) v[i] = normalised(v[i], s, norm, first + i);
      const uint32_t magnitude = __float_as_uint(v[i]) & 0x7fffffffu;
      top = magnitude > top ? magnitude : top;
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      const uint32_t other = __shfl_xor_sync(0xffffffffu, top, lanes);
      top = other > top ? other : top;
    }
    const float amax = __uint_as_float(top);
    const bool zero = amax < 7.888609052210118e-31f;  // 2^-100
    const float inverse = zero ? 0.0f : __fdiv_rn(127.0f, amax);
    uint32_t packed[2] = {0, 0};
    int sum = 0;
    for (int i = 0; i < 8; i++) {
      const int code = __float2int_rn(__fmul_rn(v[i], inverse));
      sum += code;
      packed[i / 4] |= (static_cast<uint32_t>(code) & 255u) << (8 * (i % 4));
    }
    *reinterpret_cast<uint2*>(codes + b * codes_stride + 8 * lane) = uint2{packed[0], packed[1]};
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (lane % 4 == 0) {
      const int high = (sum + 32) >> 6;  // |high| <= 64, |sum - 64 high| <= 32
      sums[b * 16 + lane / 4] = static_cast<int8_t>(high);
      sums[b * 16 + 8 + lane / 4] = static_cast<int8_t>(sum - 64 * high);
    }
    if (lane == 0) scales[b] = zero ? 0.0f : __fdiv_rn(amax, 127.0f);
  }
}

}  // namespace ke::cuda
