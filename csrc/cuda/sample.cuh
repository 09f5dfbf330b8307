// Samples a token from each row of logits, as csrc/backend/sampling.cpp and logits.cpp do on the processor: the same
// sums in the same order, so that id and log-probability are the same bits. A row is cut into chunks of kVocabChunk
// tokens, those that logits.cpp sums one by one; a grid's x is the chunk, its y the row.
#pragma once
#include "cuda/device.cuh"
#include "cuda/kernels.h"

namespace ke::cuda {

constexpr int kSampleThreads = 128;
using WarpStats = LogitStats[kSampleThreads / 32];
using Weights = float[kVocabChunk];
using WeightPairs = float[2][kVocabChunk];
using SumLanes = double[2][8];
using Ranks = uint64_t[kVocabChunk];

// Scores in an order of integers: the higher score, among equals (zeros of either sign are) the lower id. 0: none.
__device__ __forceinline__ uint64_t rank_of(float score, int64_t id) {
  const uint32_t bits = __float_as_uint(__fadd_rn(score, 0.0f));  // -0 becomes 0
  const uint32_t order = bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(order) << 32 | (0xffffffffu - static_cast<uint32_t>(id));
}
__device__ __forceinline__ int32_t id_of(uint64_t rank) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(rank));
}

// e^((score - top) * scale), as exp_block() of logits.cpp.
__device__ __forceinline__ float weight_of(float score, float top, float scale) {
  const float y = __fmul_rn(__fsub_rn(score, top), scale), x = y > -87.0f ? y : -87.0f;
  const float n = __fsub_rn(__fadd_rn(__fmul_rn(x, 1.44269504f), 12582912.0f), 12582912.0f);
  const float r = __fadd_rn(__fsub_rn(x, __fmul_rn(n, 0.693359375f)), __fmul_rn(n, 2.12194440e-4f));
  float p = 1.9875691500e-4f;
  p = __fadd_rn(__fmul_rn(p, r), 1.3981999507e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2f);
  p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1f);
  p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1f);
  const float e = __fadd_rn(__fadd_rn(__fmul_rn(p, __fmul_rn(r, r)), r), 1.0f);
  return __fmul_rn(e, __uint_as_float(static_cast<uint32_t>(__float2int_rn(n) + 127) << 23));
}

// One row and its rule.
struct SampleRow {
  const float* logits;
  int64_t cols;
  RuleRow rule;
  const IdPair* ranges;
  int chunks;

  __device__ SampleRow(const SampleTask& t, unsigned row)
      : logits(t.logits.data + row * t.logits.stride),
        cols(t.logits.cols),
        rule(t.rules[row]),
        ranges(t.ranges + rule.first_range),
        chunks(static_cast<int>((cols + kVocabChunk - 1) / kVocabChunk)) {}
  __device__ int length(int chunk) const {
    const int64_t left = cols - int64_t{chunk} * kVocabChunk;
    return left < kVocabChunk ? static_cast<int>(left) : kVocabChunk;
  }
  __device__ bool allows(int64_t id) const {
    int begin = 0, end = rule.ranges;  // the last range that begins at or before id
    while (end - begin > 1) {
      const int middle = (begin + end) / 2;
      if (ranges[middle].begin <= id)
        begin = middle;
      else
        end = middle;
    }
    return id >= ranges[begin].begin && id < ranges[begin].end;
  }
  __device__ float weight(int64_t id, float best) const {
    return allows(id) ? weight_of(logits[id], best, rule.scale) : 0.0f;
  }
};

__device__ __forceinline__ LogitStats no_stats() { return {0, __uint_as_float(0xff800000u), 1}; }

__device__ __forceinline__ LogitStats merge(const LogitStats& a, const LogitStats& b) {
  return {a.best > b.best ? a.best : b.best, a.top > b.top ? a.top : b.top, a.finite & b.finite};
}

__device__ __forceinline__ LogitStats merge_warp(LogitStats s) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2)
    s = merge(s, {__shfl_xor_sync(0xffffffffu, s.best, lanes), __shfl_xor_sync(0xffffffffu, s.top, lanes),
                  __shfl_xor_sync(0xffffffffu, s.finite, lanes)});
  return s;
}

// Of all threads of the block, in every thread.
__device__ __forceinline__ LogitStats merge_block(LogitStats s, WarpStats& parts) {
  s = merge_warp(s);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = s;
  __syncthreads();
  s = parts[0];
  for (int w = 1; w < kSampleThreads / 32; w++) s = merge(s, parts[w]);
  return s;
}

// The best allowed token, the highest logit and whether all are finite, of one chunk.
__global__ void __launch_bounds__(kSampleThreads) logit_stats_kernel(SampleTask t) {
  KE_SHARED(WarpStats, parts);
  const SampleRow row(t, blockIdx.y);
  const int64_t first = int64_t{blockIdx.x} * kVocabChunk;
  const int n = row.length(blockIdx.x);
  LogitStats s = no_stats();
  for (int i = threadIdx.x; i < n; i += kSampleThreads) {
    const float logit = row.logits[first + i];
    const bool finite = (__float_as_uint(logit) & 0x7f800000u) != 0x7f800000u;
    s = merge(s, {row.allows(first + i) ? rank_of(logit, first + i) : 0, logit, finite});
  }
  s = merge_block(s, parts);
  if (threadIdx.x == 0) t.stats[int64_t{blockIdx.y} * row.chunks + blockIdx.x] = s;
}

// The sums of one chunk: of e^(logit - top), and where a token is drawn of the allowed ones' weights. In the order of
// sum_of() of logits.cpp: eight sums side by side, added behind what is left over.
__global__ void __launch_bounds__(kSampleThreads) softmax_sums_kernel(SampleTask t) {
  KE_SHARED(WarpStats, parts);
  KE_SHARED(WeightPairs, weights);
  KE_SHARED(SumLanes, lanes);
  const SampleRow row(t, blockIdx.y);
  LogitStats all = no_stats();
  for (int b = threadIdx.x; b < row.chunks; b += kSampleThreads)
    all = merge(all, t.stats[int64_t{blockIdx.y} * row.chunks + b]);
  all = merge_block(all, parts);
  if (!all.finite) return;
  const float best = row.logits[id_of(all.best)];
  const int64_t first = int64_t{blockIdx.x} * kVocabChunk;
  const int n = row.length(blockIdx.x), whole = n / 8 * 8;
  for (int i = threadIdx.x; i < n; i += kSampleThreads) {
    weights[0][i] = weight_of(row.logits[first + i], all.top, 1.0f);
    if (row.rule.drawn) weights[1][i] = row.weight(first + i, best);
  }
  __syncthreads();
  const int which = threadIdx.x / 32, lane = threadIdx.x % 32;
  const bool sums = which < (row.rule.drawn ? 2 : 1);
  if (sums && lane < 8) {
    double sum = 0;
    for (int i = lane; i < whole; i += 8) sum = __dadd_rn(sum, weights[which][i]);
    lanes[which][lane] = sum;
  }
  __syncthreads();
  if (sums && lane == 0) {
    double sum = 0;
    for (int i = whole; i < n; i++) sum = __dadd_rn(sum, weights[which][i]);
    for (int i = 0; i < 8; i++) sum = __dadd_rn(sum, lanes[which][i]);
    t.sums[(int64_t{blockIdx.y} * row.chunks + blockIdx.x) * 2 + which] = sum;
  }
}

// The allowed tokens of one chunk, best first, and zeros behind them: a bitonic sort.
__global__ void __launch_bounds__(kSampleThreads) sort_kernel(SampleTask t) {
  KE_SHARED(Ranks, ranks);
  const SampleRow row(t, blockIdx.y);
  if (!row.rule.sorted) return;
  const int64_t first = int64_t{blockIdx.x} * kVocabChunk;
  const int n = row.length(blockIdx.x);
  for (int i = threadIdx.x; i < kVocabChunk; i += kSampleThreads)
    ranks[i] = i < n && row.allows(first + i) ? rank_of(row.logits[first + i], first + i) : 0;
  for (int size = 2; size <= kVocabChunk; size *= 2)
    for (int step = size / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int c = threadIdx.x; c < kVocabChunk / 2; c += kSampleThreads) {
        const int low = c / step * 2 * step + c % step;
        const uint64_t a = ranks[low], b = ranks[low + step];
        if ((a < b) == ((low & size) == 0)) ranks[low] = b, ranks[low + step] = a;
      }
    }
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += kSampleThreads) t.sorted[int64_t{blockIdx.y} * row.cols + first + i] = ranks[i];
}

// Shared memory of sample_kernel: one of each per chunk.
struct SampleShared {
  double* sums;     // of all exponentials
  double* weights;  // of the allowed tokens' weights
  uint64_t* heads;  // the best token that was not taken yet
  int* taken;
};
constexpr size_t kSampleBytes = 2 * sizeof(double) + sizeof(uint64_t) + sizeof(int);

// Subtracts a chunk's weights from u one by one. The token at which u falls below zero, or -1; before: u ahead of it.
__device__ __forceinline__ int32_t walk(const SampleRow& row, int chunk, float best, Weights& weights, double& u,
                                        double& before) {
  const int n = row.length(chunk);
  const int64_t first = int64_t{chunk} * kVocabChunk;
  __syncwarp();  // the weights of an earlier chunk were read
  for (int i = threadIdx.x; i < n; i += 32) weights[i] = row.weight(first + i, best);
  __syncwarp();
  for (int i = 0; i < n; i++) {
    before = u;
    u = __dsub_rn(u, weights[i]);
    if (u < 0) return static_cast<int32_t>(first + i);
  }
  return -1;
}

// A token by its weight. The processor subtracts all weights one by one; here whole chunks are subtracted, which rounds
// otherwise, by far less than `margin`: where the result could depend on that, everything is done one by one.
__device__ __forceinline__ int32_t draw_any(const SampleRow& row, const SampleShared& shared, int32_t best_id,
                                            Weights& weights) {
  const float best = row.logits[best_id];
  double total = 0, before = 0;
  for (int b = 0; b < row.chunks; b++) total = __dadd_rn(total, shared.weights[b]);
  const double margin = __dmul_rn(total, static_cast<double>(row.cols) * 0x1p-50);
  double u = __dmul_rn(row.rule.random, total);
  for (int b = 0; b < row.chunks; b++) {
    const double after = __dsub_rn(u, shared.weights[b]);
    if (after >= 0) {
      u = after;
      continue;
    }
    const int32_t id = walk(row, b, best, weights, u, before);
    if (id >= 0 && before > margin && u < -margin) return id;
    break;
  }
  u = __dmul_rn(row.rule.random, total);
  for (int b = 0; b < row.chunks; b++) {
    const int32_t id = walk(row, b, best, weights, u, before);
    if (id >= 0) return id;
  }
  return best_id;
}

// A token by its weight among the top_k best, or the fewest that reach top_p, or both: the sorted chunks are merged
// until there are enough.
__device__ __forceinline__ int32_t draw_best(const SampleRow& row, const SampleShared& shared, int32_t best_id,
                                             const uint64_t* sorted, Candidate* candidates) {
  const float best = row.logits[best_id];
  const int lane = threadIdx.x;
  const bool by_count = row.rule.top_k > 0 && row.rule.top_k < row.cols;
  double total = 0, sum = 0;
  for (int b = 0; b < row.chunks; b++) total = __dadd_rn(total, shared.weights[b]);
  const double enough = __dmul_rn(row.rule.top_p, total);
  for (int b = lane; b < row.chunks; b += 32) shared.heads[b] = sorted[int64_t{b} * kVocabChunk], shared.taken[b] = 1;
  int64_t n = 0;
  while (by_count ? n < row.rule.top_k : sum < enough) {
    uint64_t top = 0;
    for (int b = lane; b < row.chunks; b += 32) top = shared.heads[b] > top ? shared.heads[b] : top;
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      const uint64_t other = __shfl_xor_sync(0xffffffffu, top, lanes);
      top = other > top ? other : top;
    }
    if (top == 0) break;
    const int32_t id = id_of(top);
    const float weight = weight_of(row.logits[id], best, row.rule.scale);
    sum = __dadd_rn(sum, weight);
    if (lane == 0) candidates[n] = {id, weight};
    n++;
    const int b = id / kVocabChunk;
    if (b % 32 == lane) {
      const int i = shared.taken[b]++;
      shared.heads[b] = i < row.length(b) ? sorted[int64_t{b} * kVocabChunk + i] : 0;
    }
  }
  __syncwarp();  // the candidates are written
  if (by_count && row.rule.top_p < 1) {
    const double part = __dmul_rn(row.rule.top_p, sum);
    const int64_t listed = n;
    sum = 0;
    for (n = 0; n < listed && sum < part; n++) sum = __dadd_rn(sum, candidates[n].weight);
  }
  double u = __dmul_rn(row.rule.random, sum);
  for (int64_t i = 0; i < n; i++)
    if ((u = __dsub_rn(u, candidates[i].weight)) < 0) return candidates[i].id;
  return candidates[n - 1].id;
}

// One warp per row.
__global__ void __launch_bounds__(32) sample_kernel(SampleTask t) {
  KE_SHARED(Weights, weights);
  KE_DYNAMIC_SHARED(double, dynamic);
  const int64_t r = blockIdx.x;
  const SampleRow row(t, blockIdx.x);
  const int n = row.chunks, lane = threadIdx.x;
  LogitStats all = no_stats();
  for (int b = lane; b < n; b += 32) all = merge(all, t.stats[r * n + b]);
  all = merge_warp(all);
  if (!all.finite) {
    if (lane == 0) t.sampled[r] = {0, 0, 0, 0, 0};
    return;
  }
  SampleShared shared{dynamic, dynamic + n, reinterpret_cast<uint64_t*>(dynamic + 2 * n), nullptr};
  shared.taken = reinterpret_cast<int*>(shared.heads + n);
  for (int b = lane; b < n; b += 32) {
    shared.sums[b] = t.sums[(r * n + b) * 2];
    if (row.rule.drawn) shared.weights[b] = t.sums[(r * n + b) * 2 + 1];
  }
  __syncwarp();
  double sum = 0;
  for (int b = 0; b < n; b++) sum = __dadd_rn(sum, shared.sums[b]);
  int32_t id = id_of(all.best);
  if (row.rule.sorted)
    id = draw_best(row, shared, id, t.sorted + r * row.cols, t.candidates + r * row.cols);
  else if (row.rule.drawn)
    id = draw_any(row, shared, id, weights);
  if (lane == 0) t.sampled[r] = {sum, id, 1, row.logits[id], all.top};
}

}  // namespace ke::cuda
