// Attention of a tile of rows of one head: scores against panels of keys, softmax per row, sums over panels of values.
// A row's result depends on its own query, keys and values alone, in a fixed order: bits are the same in any batch.
#include "cpu/linear_float.inl"
#include "cpu/quant_tiles.inl"

namespace ke::cpu::KE_ISA {
namespace {

// Floats between the score rows of a tile; the odd vector keeps rows of a power-of-two length out of one cache set.
static constexpr int64_t score_stride(int64_t positions) { return (positions + 15) / 16 * 16 + 16; }

// s[0, n) becomes e^(s - max); returns the sum. s is 16-padded.
inline float softmax_numerators(float* s, int64_t n) {
  const float lowest = -__builtin_inff();
  for (int64_t i = n; i % 16; ++i) s[i] = lowest;
  f32x16 top = set1(lowest);
  for (int64_t i = 0; i < n; i += 16) top = max(top, load(s + i));
  const f32x16 m = set1(max_lane(top));
  f32x16 total = zero();
  for (int64_t i = 0; i < n; i += 16) {
    const f32x16 e = exp(sub(load(s + i), m));
    store(s + i, e);
    total = add(total, e);
  }
  return sum(total);
}

template <class W, int P, int C, class X>
inline int64_t float_panels(const typename W::Stored* w, int64_t panel, int64_t panels, int64_t n, X x, float* acc,
                            int64_t acc_stride, int64_t done = 0) {
  for (; done + P <= panels; done += P)
    float_tile<P, C>(SeparatePanels<W, P>{w + done * panel, panel}, n, x, acc + 16 * done, acc_stride);
  return done;
}

// scores[c][stride] of C queries and all keys, as stored. q: scratch of kMaxHeadDim * C floats.
template <class W, int C>
inline void float_scores(const AttentionTask& task, int64_t panels, float* q, float* scores, int64_t stride) {
  const int64_t d = task.head_dim;
  for (int c = 0; c < C; ++c)
    for (int64_t i = 0; i < d; ++i) q[i * C + c] = task.q[c * task.q_stride + i] * task.scale;
  const auto* keys = static_cast<const typename W::Stored*>(task.keys);
  const PackedTile<C> queries{q};
  const int64_t done = float_panels<W, kPanels, C>(keys, d * 16, panels, d, queries, scores, stride);
  if constexpr (kPanels > 1) float_panels<W, 1, C>(keys, d * 16, panels, d, queries, scores, stride, done);
}

// The queries of a tile as codes. float(sum of products) * scale[c] * the key's scale is a score.
template <int C>
struct QueryCodes {
  alignas(64) int8_t codes[C][kMaxHeadDim];
  float scale[C];
  int32_t start[C];  // of a sum: what codes that are too high add

  explicit QueryCodes(const AttentionTask& task) {
    for (int c = 0; c < C; ++c) {
      scale[c] = quantize_block(task.q + c * task.q_stride, static_cast<int>(task.head_dim), codes[c]) * task.scale;
      int32_t sum = 0;
      for (int64_t i = 0; i < task.head_dim; ++i) sum += codes[c][i];
      start[c] = -CodeProducts::offset * sum;
    }
  }
};

// The scores of P panels of keys from `first` on.
template <int P, int C>
inline void code_panels(const AttentionTask& task, const QueryCodes<C>& q, int64_t first, float* scores,
                        int64_t stride) {
  const int64_t d = task.head_dim;
  const uint8_t* keys = static_cast<const uint8_t*>(task.keys) + first * d * 16;
  i32x16 s[C][P];
  each<C, P>([&]<int c, int p>() KE_LAMBDA { s[c][p] = set1(q.start[c]); });
  for (int64_t g = 0; g < d / 4; ++g) {
    u8x64 v[P];
    each<P>([&]<int p>() KE_LAMBDA { v[p] = CodeProducts::weights(load64(keys + p * d * 16 + g * 64)); });
    each<C, P>([&]<int c, int p>() KE_LAMBDA { s[c][p] = CodeProducts::add(s[c][p], v[p], q.codes[c] + g * 4); });
  }
  each<P>([&]<int p>() KE_LAMBDA {
    const int64_t at = (first + p) * 16;
    const f32x16 key_scale = load(task.key_scales + at);
    each<C>([&]<int c>() KE_LAMBDA {
      store(scores + c * stride + at, mul(mul(to_float(s[c][p]), set1(q.scale[c])), key_scale));
    });
  });
}

template <int C>
inline void code_scores(const AttentionTask& task, int64_t panels, float* scores, int64_t stride) {
  constexpr int P = tile_panels(C);
  const QueryCodes<C> q(task);
  int64_t done = 0;
  for (; done + P <= panels; done += P) code_panels<P, C>(task, q, done, scores, stride);
  for (; done < panels; ++done) code_panels<1, C>(task, q, done, scores, stride);
}

template <class W, int C>
void attention_tile(const AttentionTask& task) {
  const int64_t d = task.head_dim, dims = (d + 15) / 16 * 16;
  int64_t longest = 0;
  for (int c = 0; c < C; ++c) longest = task.lengths[c] > longest ? task.lengths[c] : longest;
  const int64_t positions = (longest + 15) / 16 * 16, stride = score_stride(longest);
  float* q = task.scratch;                // [head_dim][C], scaled
  float* out = q + kMaxHeadDim * C;       // [C][dims]
  float* scores = out + kMaxHeadDim * C;  // [C][stride]
  if (task.key_scales)
    code_scores<C>(task, positions / 16, scores, stride);
  else
    float_scores<W, C>(task, positions / 16, q, scores, stride);

  f32x16 inverse[C];
  for (int c = 0; c < C; ++c) {
    float* s = scores + c * stride;
    inverse[c] = set1(1.0f / softmax_numerators(s, task.lengths[c]));
    for (int64_t i = task.lengths[c]; i < longest; ++i) s[i] = 0;  // later positions belong to the tile's other rows
  }

  const RowTile weights{scores, stride};
  const auto* values = static_cast<const typename W::Stored*>(task.values);
  const int64_t value_panel = task.value_panel * 16;
  const int64_t done = float_panels<W, kPanels, C>(values, value_panel, dims / 16, longest, weights, out, kMaxHeadDim);
  if constexpr (kPanels > 1)
    float_panels<W, 1, C>(values, value_panel, dims / 16, longest, weights, out, kMaxHeadDim, done);

  for (int c = 0; c < C; ++c)
    map(out + c * kMaxHeadDim, task.out + c * task.out_stride, d,
        [&](f32x16 v, int64_t, int) { return mul(v, inverse[c]); });
}

// values[i * step] = x[i]. Written so that GCC does not make slow scatter instructions of it.
template <class Value>
inline void scatter(const Value* x, int n, Value* to, int64_t step) {
  for (int i = 0; i < n; ++i) {
    to[i * step] = x[i];
    asm volatile("" ::: "memory");
  }
}

}  // namespace

void attention(const AttentionTask* task) {
  for_columns<kTileCols>(task->rows, [&]<int C>() {
    if (task->half)
      attention_tile<F16Weights, C>(*task);
    else
      attention_tile<F32Weights, C>(*task);
  });
}

void store_kv(const float* k, const float* v, int64_t head_dim, int64_t value_panel, bool half, void* key,
              void* value) {
  for (int64_t i = 0; i < head_dim; i += 16) {
    const int n = head_dim - i < 16 ? static_cast<int>(head_dim - i) : 16;
    const f32x16 values = load_n(v + i, n);
    if (half) {
      alignas(32) uint16_t bits[16];
      store_half(bits, load_n(k + i, n));
      scatter(bits, n, static_cast<uint16_t*>(key) + i * 16, 16);
      store_half(static_cast<uint16_t*>(value) + i * value_panel, values);
    } else {
      scatter(k + i, n, static_cast<float*>(key) + i * 16, 16);
      store(static_cast<float*>(value) + i * value_panel, values);
    }
  }
}

void pack_keys(const float* k, int64_t k_stride, int64_t n, int64_t head_dim, float* keys) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int64_t dim = 0; dim < head_dim; dim += 16) {
      // Rows a power of two apart share one cache set: each line is read once, into a block of its own.
      const int count = head_dim - dim < 16 ? static_cast<int>(head_dim - dim) : 16;
      alignas(64) float block[16 * 16];
      for (int r = 0; r < 16; ++r) store(block + r * 16, load_n(k + (i + r) * k_stride + dim, count));
      for (int j = 0; j < count; j += 4) {
        f32x16 t[4];
        transpose_4(block + j, 16, t);
        for (int l = 0; l < 4; ++l) store(keys + i * head_dim + (dim + j + l) * 16, t[l]);
      }
    }
  for (; i < n; ++i) scatter(k + i * k_stride, static_cast<int>(head_dim), keys + i / 16 * 16 * head_dim + i % 16, 16);
}

void pack_key_codes(const float* k, int64_t k_stride, int64_t n, int64_t head_dim, uint8_t* keys, float* scales) {
  const int d = static_cast<int>(head_dim);
  alignas(64) float mean[kMaxHeadDim], row[kMaxHeadDim];
  alignas(64) uint8_t codes[kMaxHeadDim];
  for (int i = 0; i < d; i += 16) store(mean + i, zero());
  for (int64_t r = 0; r < n; ++r)
    for (int i = 0; i < d; i += 16) store(mean + i, add(load(mean + i), load(k + r * k_stride + i)));
  const f32x16 share = set1(1.0f / static_cast<float>(n));
  for (int i = 0; i < d; i += 16) store(mean + i, mul(load(mean + i), share));
  for (int64_t r = 0; r < (n + 15) / 16 * 16; ++r) {
    for (int i = 0; i < d; i += 16) store(row + i, r < n ? sub(load(k + r * k_stride + i), load(mean + i)) : zero());
    scales[r] = quantize_block(row, d, reinterpret_cast<int8_t*>(codes));
    for (int i = 0; i < d; ++i) codes[i] ^= 0x80;  // + 128
    uint32_t dwords[kMaxHeadDim / 4];
    __builtin_memcpy(dwords, codes, d);
    scatter(dwords, d / 4, reinterpret_cast<uint32_t*>(keys + r / 16 * 16 * d) + r % 16, 16);
  }
}

void pack_values(const float* v, int64_t v_stride, int64_t n, int64_t head_dim, float* values) {
  for (int64_t dim = 0; dim < head_dim; dim += 16) {
    const int count = head_dim - dim < 16 ? static_cast<int>(head_dim - dim) : 16;
    for (int64_t i = 0; i < n; ++i) store(values + dim * n + i * 16, load_n(v + i * v_stride + dim, count));
  }
}

}  // namespace ke::cpu::KE_ISA
