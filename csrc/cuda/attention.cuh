// Attention in float32: over a cache, one row and head per block of the launch, and all-to-all, a tile of rows and one
// head. Scores of a row lie in shared memory. Sums have the order of csrc/cpu/units/attention.cpp: scores and outputs
// in chunks of 128 products, each summed value by value, the exponentials in 16 partial sums.
#pragma once
#include "cuda/gemm_float.cuh"

namespace ke::cuda {

// Eight values of a cache.
template <bool Half>
__device__ __forceinline__ void load_eight(const uint8_t* base, int64_t at, float (&out)[8]) {
  if constexpr (Half) {
    const uint4 v = *reinterpret_cast<const uint4*>(reinterpret_cast<const uint16_t*>(base) + at);
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = from_half(static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16)));
  } else {
    const float4* p = reinterpret_cast<const float4*>(reinterpret_cast<const float*>(base) + at);
    const float4 a = p[0], b = p[1];
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
  }
}

// Where a layer's keys (which = 0) or values (1) of one head begin, in values.
__device__ __forceinline__ int64_t cache_offset(const DevicePosition& place, const CacheShape& shape, int which,
                                                int64_t head) {
  return ((int64_t{shape.layer} * 2 + which) * shape.heads + head) * place.capacity * shape.head_dim;
}

template <bool Half>
__global__ void __launch_bounds__(kThreads)
    kv_write_kernel(Matrix k, Matrix v, const DevicePosition* positions, CacheShape shape) {
  const DevicePosition place = positions[blockIdx.x];
  const float* from[2] = {k.data + blockIdx.x * k.stride, v.data + blockIdx.x * v.stride};
  for (int64_t i = threadIdx.x; i < 2 * k.cols; i += kThreads) {
    const int which = i >= k.cols;
    const int64_t c = which ? i - k.cols : i, head = c / shape.head_dim, dim = c % shape.head_dim;
    const int64_t at = cache_offset(place, shape, which, head) + place.position * shape.head_dim + dim;
    if constexpr (Half)
      reinterpret_cast<uint16_t*>(place.cache)[at] = to_half(from[which][c]);
    else
      reinterpret_cast<float*>(place.cache)[at] = from[which][c];
  }
}

constexpr int kMostDim = 256;
using Query = float[kMostDim];

// Dynamic shared memory: scores, as many as the row that sees the most positions has.
template <bool Half>
__global__ void __launch_bounds__(kThreads)
    kv_attention_kernel(Matrix q, const DevicePosition* positions, CacheShape shape, float scale, BiasTable bias,
                        Matrix out) {
  KE_SHARED(Partial, partial);
  KE_SHARED(Query, query);
  KE_DYNAMIC_SHARED(float, scores);
  const DevicePosition place = positions[blockIdx.y];
  const int64_t head = blockIdx.x, dims = shape.head_dim, length = int64_t{place.position} + 1;
  const float* from = q.data + blockIdx.y * q.stride + head * dims;
  for (int64_t i = threadIdx.x; i < dims; i += kThreads) query[i] = __fmul_rn(from[i], scale);
  __syncthreads();

  const int64_t kv_head = head / shape.group;
  const int64_t keys = cache_offset(place, shape, 0, kv_head), values = cache_offset(place, shape, 1, kv_head);
  float top = -INFINITY;
  for (int64_t p = threadIdx.x; p < length; p += kThreads) {
    float score = 0;
    for (int64_t chunk = 0; chunk < dims; chunk += kChunk) {
      const int64_t end = chunk + kChunk < dims ? chunk + kChunk : dims;
      float sum = 0;
      for (int64_t i = chunk; i < end; i += 8) {
        float key[8];
        load_eight<Half>(place.cache, keys + p * dims + i, key);
#pragma unroll
        for (int j = 0; j < 8; j++) sum = __fmaf_rn(key[j], query[i + j], sum);
      }
      score = chunk == 0 ? sum : __fadd_rn(score, sum);
    }
    if (bias.data) score = __fadd_rn(score, bias.data[head * bias.stride + bias.zero + p - place.position]);
    scores[p] = score;
    top = fmaxf(top, score);
  }
  top = block_max(top, partial);
  for (int64_t p = threadIdx.x; p < length; p += kThreads) scores[p] = exponential(__fsub_rn(scores[p], top));
  __syncthreads();
  if (threadIdx.x < 32) {
    float sum = 0;
    for (int64_t p = threadIdx.x % 16; p < length; p += 16) sum = __fadd_rn(sum, scores[p]);
    sum = sum_of_16(sum);
    if (threadIdx.x == 0) partial[16] = __fdiv_rn(1.0f, sum);
  }
  __syncthreads();

  for (int64_t dim = threadIdx.x; dim < dims; dim += kThreads) {
    float total = 0;
    for (int64_t chunk = 0; chunk < length; chunk += kChunk) {
      const int64_t end = chunk + kChunk < length ? chunk + kChunk : length;
      float sum = 0;
      for (int64_t p = chunk; p < end; p++) {
        const int64_t at = values + p * dims + dim;
        const float value = Half ? from_half(reinterpret_cast<const uint16_t*>(place.cache)[at])
                                 : reinterpret_cast<const float*>(place.cache)[at];
        sum = __fmaf_rn(value, scores[p], sum);
      }
      total = chunk == 0 ? sum : __fadd_rn(total, sum);
    }
    out.data[blockIdx.y * out.stride + head * dims + dim] = __fmul_rn(total, partial[16]);
  }
}

constexpr int kKeyTile = 32;     // positions whose keys lie in shared memory, one per lane
constexpr int kWarpQueries = 4;  // of a warp, where the scores of so many fit; else one

// Dynamic shared memory: keys (kKeyTile, dims + 4), queries (per block, dims), scores (per block, positions).
constexpr size_t attention_shared_bytes(int64_t dims, int64_t positions, int warp_queries) {
  return sizeof(float) * static_cast<size_t>(kKeyTile * (dims + 4) + kWarps * warp_queries * (dims + positions));
}

// group: query heads that share keys and values.
template <int kQueries>
__global__ void __launch_bounds__(kThreads) attention_kernel(Matrix q, Matrix k, Matrix v, int64_t dims, int64_t group,
                                                             float scale, BiasTable bias, Matrix out) {
  constexpr int kTileQueries = kWarps * kQueries;
  KE_DYNAMIC_SHARED(float, memory);
  const int64_t n = k.rows, head = blockIdx.y, first = int64_t{blockIdx.x} * kTileQueries, stride = dims + 4;
  const int64_t kv = int64_t{blockIdx.y / static_cast<unsigned>(group)} * dims;
  float* keys = memory;
  float* queries = keys + kKeyTile * stride;
  float* scores = queries + kTileQueries * dims;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, own = warp * kQueries;
  const int width = static_cast<int>(dims);  // divisions of 64 bits would cost registers
  for (int i = threadIdx.x; i < kTileQueries * width; i += kThreads) {
    const int64_t r = first + i / width;
    queries[i] = r < q.rows ? __fmul_rn(q.data[r * q.stride + head * dims + i % width], scale) : 0.0f;
  }
  for (int64_t tile = 0; tile < n; tile += kKeyTile) {
    __syncthreads();
    for (int i = threadIdx.x; i < kKeyTile * width; i += kThreads) {
      const int64_t p = tile + i / width;
      keys[i / width * stride + i % width] = p < n ? k.data[p * k.stride + kv + i % width] : 0.0f;
    }
    __syncthreads();
    float score[kQueries] = {};
    for (int64_t chunk = 0; chunk < dims; chunk += kChunk) {
      const int64_t end = chunk + kChunk < dims ? chunk + kChunk : dims;
      float sum[kQueries] = {};
      for (int64_t i = chunk; i < end; i += 4) {
        const float4 key = *reinterpret_cast<const float4*>(keys + lane * stride + i);
#pragma unroll
        for (int r = 0; r < kQueries; r++) {
          const float4 x = *reinterpret_cast<const float4*>(queries + (own + r) * dims + i);
          sum[r] = __fmaf_rn(key.x, x.x, sum[r]);
          sum[r] = __fmaf_rn(key.y, x.y, sum[r]);
          sum[r] = __fmaf_rn(key.z, x.z, sum[r]);
          sum[r] = __fmaf_rn(key.w, x.w, sum[r]);
        }
      }
#pragma unroll
      for (int r = 0; r < kQueries; r++) score[r] = chunk == 0 ? sum[r] : __fadd_rn(score[r], sum[r]);
    }
#pragma unroll
    for (int r = 0; r < kQueries; r++)
      if (tile + lane < n) scores[(own + r) * n + tile + lane] = score[r];
  }
  __syncwarp();  // from here on a warp works on its own queries' scores alone
  float inverse[kQueries];
#pragma unroll
  for (int r = 0; r < kQueries; r++) {
    float* s = scores + (own + r) * n;
    if (bias.data && first + own + r < q.rows) {  // here, where few registers are in use
      const float* of = bias.data + head * bias.stride + bias.zero - (first + own + r);
      for (int64_t p = lane; p < n; p += 32) s[p] = __fadd_rn(s[p], of[p]);
    }
    float top = -INFINITY, sum = 0;
    for (int64_t p = lane; p < n; p += 32) top = fmaxf(top, s[p]);
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, lanes));
    for (int64_t p = lane; p < n; p += 32) s[p] = exponential(__fsub_rn(s[p], top));
    __syncwarp();
    for (int64_t p = lane % 16; p < n; p += 16) sum = __fadd_rn(sum, s[p]);
    inverse[r] = __fdiv_rn(1.0f, sum_of_16(sum));
  }
  for (int64_t dim = lane; dim < dims; dim += 32) {
    float total[kQueries] = {};
    const float* column = v.data + kv + dim;
    for (int64_t chunk = 0; chunk < n; chunk += kChunk) {
      const int64_t end = chunk + kChunk < n ? chunk + kChunk : n;
      float sum[kQueries] = {};
      for (int64_t p = chunk; p < end; p++) {
        const float value = column[p * v.stride];
#pragma unroll
        for (int r = 0; r < kQueries; r++) sum[r] = __fmaf_rn(value, scores[(own + r) * n + p], sum[r]);
      }
#pragma unroll
      for (int r = 0; r < kQueries; r++) total[r] = chunk == 0 ? sum[r] : __fadd_rn(total[r], sum[r]);
    }
#pragma unroll
    for (int r = 0; r < kQueries; r++)
      if (first + own + r < q.rows)
        out.data[(first + own + r) * out.stride + head * dims + dim] = __fmul_rn(total[r], inverse[r]);
  }
}

}  // namespace ke::cuda
