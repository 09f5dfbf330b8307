// Attention of a tile of rows of one head in one pass: scores against panels of keys, softmax per row, sums over panels
// of values. A row's result depends on its own query, keys and values alone, in a fixed order: bits are the same in any
// batch.
#include "cpu/attention.inl"

namespace ke::cpu::KE_ISA {
namespace {

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

template <class W, int C>
void attention_tile(const AttentionTask& task) {
  const int64_t d = task.queries.head_dim, dims = (d + 15) / 16 * 16;
  const KeyTiles& tiles = task.tiles;
  int64_t longest = 0;
  for (int c = 0; c < C; ++c) longest = task.lengths[c] > longest ? task.lengths[c] : longest;
  const int64_t stride = score_stride(longest), step = tiles.tile_positions();
  float* q = task.scratch;                // [head_dim][C], scaled
  float* out = q + kMaxHeadDim * C;       // [C][dims]
  float* scores = out + kMaxHeadDim * C;  // [C][stride]
  if (task.key_scales) {
    code_scores<C>(QueryCodes<C>(task.queries), d, tiles.keys_of(0), task.key_scales, (longest + 15) / 16, scores,
                   stride);
  } else {
    pack_queries<C>(task.queries, q);
    for (int64_t t = 0, at = 0; at < longest; ++t, at += step) {
      const int64_t n = longest - at < step ? longest - at : step;
      float_scores<W, C>(q, d, tiles.keys_of(t), (n + 15) / 16, scores + at, stride);
    }
  }

  f32x16 inverse[C];
  for (int c = 0; c < C; ++c) {
    float* s = scores + c * stride;
    if (task.bias[c]) add_bias(task.bias[c], task.lengths[c], s);
    inverse[c] = set1(1.0f / softmax_numerators(s, task.lengths[c]));
    for (int64_t i = task.lengths[c]; i < longest; ++i) s[i] = 0;  // later positions belong to the tile's other rows
  }

  for (int64_t t = 0, at = 0; at < longest; ++t, at += step) {
    const int64_t n = longest - at < step ? longest - at : step;
    const RowTile weights{scores + at, stride};
    float_panels<W, C>(reinterpret_cast<const typename W::Stored*>(tiles.values_of(t)), tiles.panel_of(t) * 16,
                       dims / 16, n, weights, out, kMaxHeadDim, at > 0);
  }
  for (int c = 0; c < C; ++c)
    map(out + c * kMaxHeadDim, task.out + c * task.out_stride, d,
        [&](f32x16 v, int64_t, int) { return mul(v, inverse[c]); });
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

}  // namespace ke::cpu::KE_ISA
