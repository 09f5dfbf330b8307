#include "layers/abstractor.h"

#include <cmath>

namespace ke {

Abstractor::Abstractor(Backend& backend, Weights& weights, const AbstractorShape& shape)
    : backend_(backend), shape_(shape) {
  const BlockShape& b = shape.block;
  const int64_t d = b.width;
  KE_ASSERT(b.gated && b.bias && b.ffn_sub_norm && b.kv_heads == b.heads && b.q_width() == d);
  queries_ = load_floats(backend, weights.floats("mm.query", {shape.queries, d}), shape.queries, d);
  for (int64_t i = 0; i < shape.layers; i++) {
    const std::string n = concat("mm.blk.", i, ".");
    Layer layer;
    layer.query_norm = load_norm(backend, weights, n + "attn_norm", d, b.norm);
    layer.feature_norm = load_norm(backend, weights, n + "feature_norm", d, b.norm);
    layer.q = load_linear(backend, weights, {{n + "attn_q", d}}, d, true);
    layer.kv = load_linear(backend, weights, {{n + "attn_k", d}, {n + "attn_v", d}}, d, true);
    layer.output = load_linear(backend, weights, {{n + "attn_output", d}}, d, true);
    layer.ffn = FeedForward(backend, weights, b, n, "ffn_norm", MatmulUse::Any, nullptr);
    layers_.push_back(std::move(layer));
  }
  projection_ = load_linear(backend, weights, {{"mm.0", shape.width}}, d, true);
  end_ = load_floats(backend, weights.vector("mm.end", shape.width), 1, shape.width);
}

Mat Abstractor::forward(Workspace& ws, Mat features) const {
  const BlockShape& b = shape_.block;
  const int64_t m = shape_.queries, n = m + features.rows, d = b.width;
  const Mat whole = ws.take(n, d), kv = ws.take(n, 2 * d), q = ws.take(m, d), a = ws.take(m, d);
  const Mat scratch = ws.take(m, b.scratch_width()), hidden = ws.take(m, b.hidden_width());
  const float scale = 1.0f / std::sqrt(static_cast<float>(b.head_dim));
  const Mat x = whole.row_range(0, m);  // queries first, then features
  backend_.copy(Mat(*queries_, m, d), x);
  for (const Layer& layer : layers_) {
    backend_.norm(x, layer.query_norm, x);  // what the block adds goes to the normed queries
    backend_.norm(features, layer.feature_norm, whole.row_range(m, n));
    backend_.linear(*layer.q, x, Activation::None, {}, q);
    backend_.linear(*layer.kv, whole, Activation::None, {}, kv);
    backend_.attention(q, kv.col_range(0, d), kv.col_range(d, 2 * d), b.heads, scale, a);
    backend_.linear(*layer.output, a, Activation::None, x, x);
    layer.ffn.run(backend_, x, scratch, hidden, x, x);
  }
  const Mat y = ws.take(m + 1, shape_.width);
  backend_.linear(*projection_, x, Activation::None, {}, y.row_range(0, m));
  backend_.copy(Mat(*end_, 1, shape_.width), y.row_range(m, m + 1));
  return y;
}

}  // namespace ke
