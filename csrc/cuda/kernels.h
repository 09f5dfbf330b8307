// The seam between the host code of the backend and the kernels: what each launch needs, as plain data. Every function
// puts its work on the stream and returns what the launch returned. All pointers are of device memory, matrices are
// float32 by rows, strides count values.
//
// Arithmetic: a row's result depends on that row alone, bit for bit, whatever other rows are beside it and whichever
// kernel computes it. Quantized products follow csrc/cpu/quant_dot4.inl to the bit: activations become codes of 8 bits
// per block of 256, products are exact integers per block, and blocks are added in order without fused steps.
#pragma once
#include <stdint.h>

#include "cuda/layout.h"
#include "cuda/runtime.h"

namespace ke::cuda {

// Blocks of a launch that take `per` of n things each.
inline unsigned up(int64_t n, int64_t per) { return static_cast<unsigned>((n + per - 1) / per); }

enum class Act : int { None, GeluErf, QuickGelu, Relu, GeluTanh, Silu };  // as Activation

struct Matrix {
  float* data = nullptr;
  int64_t rows = 0, cols = 0, stride = 0;
};

// As Norm. gamma == nullptr: no norm.
struct NormWeights {
  const float* gamma = nullptr;
  const float* beta = nullptr;  // or nullptr
  float eps = 0;
  int rms = 0;
};

// y = act(product + bias) + residual, for outputs from the segment's first on.
struct Epilogue {
  const float* bias = nullptr;      // or nullptr
  const float* residual = nullptr;  // or nullptr; may be y
  int64_t residual_stride = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
  Act act = Act::None;
};

// Rows of activations as codes: codes (rows, cols), scales (rows, blocks), sums (rows, blocks, 16): the sums of 32
// codes split as 64 * high + low, eight high bytes, then eight low ones.
struct Codes {
  int8_t* codes = nullptr;
  float* scales = nullptr;
  int8_t* sums = nullptr;
};

// Rows of a matrix with one quantized format, in the layout of csrc/cuda/layout.h.
struct QuantizedWeights {
  Format format;
  const uint8_t* data;
  int64_t rows, blocks;
};

// Float weights by rows of `stride` values: float32, or 16 bits.
enum class FloatType : int { F32, F16, BF16 };
struct FloatWeights {
  FloatType type;
  const void* data;
  int64_t rows, cols, stride;  // stride is a multiple of 8; values behind cols are zero
};

// How many rows of x the GEMV takes at once; 0: rows are too long for it.
int max_gemv_rows(int64_t blocks);
// At most max_gemv_rows() rows: norm and quantization of x happen in every block of the launch.
cudaError_t launch_gemv(cudaStream_t stream, const QuantizedWeights& w, const Matrix& x, const NormWeights& norm,
                        const Epilogue& epilogue);
// Any number of rows, on the tensor cores; x comes from launch_quantize.
cudaError_t launch_gemm(cudaStream_t stream, const QuantizedWeights& w, const Codes& x, int64_t x_rows,
                        const Epilogue& epilogue);
cudaError_t launch_quantize(cudaStream_t stream, const Matrix& x, const NormWeights& norm, const Codes& out);
cudaError_t launch_gemm_float(cudaStream_t stream, const FloatWeights& w, const Matrix& x, const Epilogue& epilogue);

cudaError_t launch_norm(cudaStream_t stream, const Matrix& x, const NormWeights& norm, const Matrix& y);
cudaError_t launch_l2_normalize(cudaStream_t stream, const Matrix& x, float eps);
cudaError_t launch_add(cudaStream_t stream, const Matrix& x, const Matrix& y);
cudaError_t launch_add_scaled(cudaStream_t stream, const Matrix& x, float factor, const Matrix& y);
cudaError_t launch_scale(cudaStream_t stream, const Matrix& x, float factor, const Matrix& y);
cudaError_t launch_gate(cudaStream_t stream, const Matrix& gate, Act act, const Matrix& up, const Matrix& y);
// y(:, i) = x(:, columns[i])
cudaError_t launch_gather_columns(cudaStream_t stream, const Matrix& x, const int32_t* columns, const Matrix& y);

// How keys and values are kept. Q8_0: a head's row has codes (head_dim), then for each kCacheBlock of them a float16
// scale, filled up to a multiple of 4 bytes; code * scale is a value. Quantized as by
// csrc/cpu/units/attention_pack.cpp.
enum class CacheType : int { F32, F16, Q8_0 };
constexpr int kCacheBlock = 32;
// Of one position of one head, keys or values.
inline int64_t cache_row_bytes(CacheType type, int64_t dims) {
  const int64_t scales = 2 * ((dims + kCacheBlock - 1) / kCacheBlock);
  return type == CacheType::F32 ? 4 * dims : type == CacheType::F16 ? 2 * dims : (dims + scales + 3) / 4 * 4;
}

// Where one row belongs: its cache and its position. A cache is [layer][keys, values][head][position], rows of bytes.
struct DevicePosition {
  uint8_t* cache;
  int64_t capacity;  // positions
  int32_t position;
  int32_t pad;
};
struct CacheShape {
  int64_t heads, head_dim;  // of keys and values
  int64_t group;            // query heads that share one of them
  int64_t row_bytes;        // cache_row_bytes
  int layer;
  CacheType type;
};
// See Rope; table: (positions, dims).
struct RopeTable {
  const float* table;
  int64_t dims;
  int interleaved;
};
// See RelativeBias; data: nullptr where there is none.
struct BiasTable {
  const float* data = nullptr;
  int64_t stride = 0, zero = 0;
};
cudaError_t launch_rope(cudaStream_t stream, const Matrix& x, int64_t heads, const RopeTable& rope,
                        const DevicePosition* positions);
cudaError_t launch_kv_write(cudaStream_t stream, const Matrix& k, const Matrix& v, const DevicePosition* positions,
                            const CacheShape& shape);
// longest: the most positions that a row sees. Row r sees positions 0 .. positions[r].position.
cudaError_t launch_kv_attention(cudaStream_t stream, const Matrix& q, const DevicePosition* positions,
                                const CacheShape& shape, float scale, int64_t longest, const BiasTable& bias,
                                const Matrix& out);
cudaError_t launch_attention(cudaStream_t stream, const Matrix& q, const Matrix& k, const Matrix& v, int64_t heads,
                             float scale, const BiasTable& bias, const Matrix& out);

// ---- sampling a token from each row of logits (backend/sampling.h); a vocabulary is processed in chunks
constexpr int kVocabChunk = 512;       // tokens
constexpr int kMaxVocabChunks = 1536;  // of a row: launch_sample keeps some values of each in shared memory

// Tokens begin .. end - 1.
struct IdPair {
  int32_t begin, end;
};
// A row's SamplingRule; ranges from first_range on, at least one.
struct RuleRow {
  double random;
  int32_t first_range, ranges;
  int32_t drawn, sorted;  // by temperature; with top_k or top_p too
  float scale, top_p;     // scale: of Sampling
  int32_t top_k, pad;
};
// Of a chunk: the best allowed token by rank (sample.cuh; 0: none), the highest logit.
struct LogitStats {
  uint64_t best;
  float top;
  int32_t finite;  // all logits are
};
struct Candidate {
  int32_t id;
  float weight;
};
// See Sampled.
struct SampledRow {
  double sum;
  int32_t id, finite;
  float logit, top;
};
struct SampleTask {
  Matrix logits;
  const RuleRow* rules = nullptr;  // (rows)
  const IdPair* ranges = nullptr;
  LogitStats* stats = nullptr;  // (rows, chunks)
  double* sums = nullptr;       // (rows, chunks, 2): of exponentials, of weights
  // Where a row is sorted, else nullptr: (rows, cols), ranks by chunk, and the best tokens in order.
  uint64_t* sorted = nullptr;
  Candidate* candidates = nullptr;
  SampledRow* sampled = nullptr;  // (rows)
};
// In this order; launch_sort where a row is sorted.
cudaError_t launch_logit_stats(cudaStream_t stream, const SampleTask& task);
cudaError_t launch_softmax_sums(cudaStream_t stream, const SampleTask& task);
cudaError_t launch_sort(cudaStream_t stream, const SampleTask& task);
cudaError_t launch_sample(cudaStream_t stream, const SampleTask& task);

// The most positions that the attention over a cache takes, and the one with heads of `dims` values.
constexpr int64_t kMostPositions = 8192;
int64_t attention_positions(int64_t dims);

}  // namespace ke::cuda
