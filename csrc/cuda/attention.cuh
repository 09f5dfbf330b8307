// Attention in float32: over a cache, one row and head per block of the launch, and all-to-all, a tile of rows and one
// head. Scores of a row lie in shared memory. Sums have the order of csrc/cpu/units/attention.cpp: scores and outputs
// in chunks of 128 products, each summed value by value, the exponentials in 16 partial sums.
#pragma once
#include "cuda/gemm_float.cuh"

namespace ke::cuda {

// Where a layer's keys (which = 0) or values (1) of one head begin.
__device__ __forceinline__ uint8_t* cache_rows(const DevicePosition& place, const CacheShape& shape, int which,
                                               int64_t head) {
  return place.cache + ((int64_t{shape.layer} * 2 + which) * shape.heads + head) * place.capacity * shape.row_bytes;
}

// The scale of value `dim` of a Q8_0 row.
__device__ __forceinline__ uint16_t* cache_scale(uint8_t* row, int64_t dims, int64_t dim) {
  return reinterpret_cast<uint16_t*>(row + dims) + dim / kCacheBlock;
}

// Eight values of a row, from `dim` on, a multiple of 8.
template <CacheType kType>
__device__ __forceinline__ void load_eight(uint8_t* row, int64_t dims, int64_t dim, float (&out)[8]) {
  if constexpr (kType == CacheType::Q8_0) {
    const uint32_t* codes = reinterpret_cast<const uint32_t*>(row + dim);
    const float scale = from_half(*cache_scale(row, dims, dim));
#pragma unroll
    for (int i = 0; i < 8; i++)
      out[i] = __fmul_rn(static_cast<float>(static_cast<int8_t>(codes[i / 4] >> (i % 4 * 8))), scale);
  } else if constexpr (kType == CacheType::F16) {
    const uint4 v = *reinterpret_cast<const uint4*>(reinterpret_cast<const uint16_t*>(row) + dim);
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = from_half(static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16)));
  } else {
    const float4* p = reinterpret_cast<const float4*>(reinterpret_cast<const float*>(row) + dim);
    const float4 a = p[0], b = p[1];
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
  }
}

template <CacheType kType>
__device__ __forceinline__ float load_one(uint8_t* row, int64_t dims, int64_t dim) {
  if constexpr (kType == CacheType::Q8_0)
    return __fmul_rn(static_cast<float>(reinterpret_cast<const int8_t*>(row)[dim]),
                     from_half(*cache_scale(row, dims, dim)));
  else if constexpr (kType == CacheType::F16)
    return from_half(reinterpret_cast<const uint16_t*>(row)[dim]);
  else
    return reinterpret_cast<const float*>(row)[dim];
}

// Values [dim, dim + n) of a Q8_0 row, n <= kCacheBlock: quantize_block of csrc/cpu/quantize.inl.
__device__ __forceinline__ void store_block(const float* x, int64_t n, uint8_t* row, int64_t dims, int64_t dim) {
  uint32_t top = 0;  // magnitudes compare like the integers of their bits, NaN above all
  for (int64_t i = 0; i < n; i++) {
    const uint32_t bits = __float_as_uint(fabsf(x[i]));
    top = bits > top ? bits : top;
  }
  const float amax = __uint_as_float(top);
  const bool zeros = amax < 7.888609052210118e-31f;
  const float inverse = zeros ? 0.0f : __fdiv_rn(127.0f, amax);
  int8_t* codes = reinterpret_cast<int8_t*>(row) + dim;
  for (int64_t i = 0; i < n; i++) codes[i] = static_cast<int8_t>(__float2int_rn(__fmul_rn(x[i], inverse)));
  *cache_scale(row, dims, dim) = to_half(zeros ? 0.0f : __fdiv_rn(amax, 127.0f));
}

template <CacheType kType>
__global__ void __launch_bounds__(kThreads)
    kv_write_kernel(Matrix k, Matrix v, const DevicePosition* positions, CacheShape shape) {
  const DevicePosition place = positions[blockIdx.x];
  const float* from[2] = {k.data + blockIdx.x * k.stride, v.data + blockIdx.x * v.stride};
  // A thread's part of a head's row: a block that shares a scale, or one value.
  const int64_t dims = shape.head_dim, part = kType == CacheType::Q8_0 ? kCacheBlock : 1;
  const int64_t parts = (dims + part - 1) / part;
  for (int64_t i = threadIdx.x; i < 2 * shape.heads * parts; i += kThreads) {
    const int which = i >= shape.heads * parts;
    const int64_t at = which ? i - shape.heads * parts : i, head = at / parts, dim = at % parts * part;
    uint8_t* row = cache_rows(place, shape, which, head) + place.position * shape.row_bytes;
    const float* x = from[which] + head * dims + dim;
    if constexpr (kType == CacheType::Q8_0)
      store_block(x, dims - dim < part ? dims - dim : part, row, dims, dim);
    else if constexpr (kType == CacheType::F16)
      reinterpret_cast<uint16_t*>(row)[dim] = to_half(*x);
    else
      reinterpret_cast<float*>(row)[dim] = *x;
  }
}

constexpr int kMostDim = 256;
using Query = float[kMostDim];

// Dynamic shared memory: scores, as many as the row that sees the most positions has.
template <CacheType kType>
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
  uint8_t *keys = cache_rows(place, shape, 0, kv_head), *values = cache_rows(place, shape, 1, kv_head);
  float top = -INFINITY;
  for (int64_t p = threadIdx.x; p < length; p += kThreads) {
    float score = 0;
    for (int64_t chunk = 0; chunk < dims; chunk += kChunk) {
      const int64_t end = chunk + kChunk < dims ? chunk + kChunk : dims;
      float sum = 0;
      for (int64_t i = chunk; i < end; i += 8) {
        float key[8];
        load_eight<kType>(keys + p * shape.row_bytes, dims, i, key);
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
      for (int64_t p = chunk; p < end; p++)
        sum = __fmaf_rn(load_one<kType>(values + p * shape.row_bytes, dims, dim), scores[p], sum);
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
