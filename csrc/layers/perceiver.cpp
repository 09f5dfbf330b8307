#include "layers/perceiver.h"

#include <cmath>

namespace ke {

Perceiver::Perceiver(Backend& backend, Weights& weights, const PerceiverShape& shape)
    : backend_(backend), shape_(shape) {
  const BlockShape& b = shape.block;
  const int64_t d = b.width, inner = b.q_width();
  KE_ASSERT(!b.bias && !b.post_norm && b.kv_heads == b.heads);
  start_ = load_floats(backend, weights.floats("mm.query", {shape.latents, d}), shape.latents, d);
  for (int64_t i = 0; i < shape.layers; i++) {
    const std::string n = concat("mm.blk.", i, ".");
    Layer l;
    l.latents_norm = load_norm(backend, weights, n + "attn_norm", d, b.norm);
    l.context_norm = load_norm(backend, weights, n + "context_norm", d, b.norm);
    l.q = load_linear(backend, weights, {{n + "attn_q", inner}}, d, b.bias);
    l.kv = load_linear(backend, weights, {{n + "attn_k", inner}, {n + "attn_v", inner}}, d, b.bias);
    if (shape.head_norms) {
      l.q_norm = load_norm(backend, weights, n + "attn_q_norm", b.head_dim, b.norm);
      l.k_norm = load_norm(backend, weights, n + "attn_k_norm", b.head_dim, b.norm);
    }
    l.output = load_linear(backend, weights, {{n + "attn_output", d}}, inner, b.bias);
    l.ffn = FeedForward(backend, weights, b, n, "ffn_norm", MatmulUse::Any, nullptr);
    layers_.push_back(std::move(l));
  }
  output_norm_ = load_norm(backend, weights, "mm.output_norm", d, b.norm);
}

void Perceiver::norm_heads(Mat x, const LoadedNorm& norm) const {
  const int64_t dim = shape_.block.head_dim;
  for (int64_t h = 0; h < shape_.block.heads; h++) {
    const Mat head = x.col_range(h * dim, (h + 1) * dim);
    backend_.norm(head, norm, head);
  }
}

Mat Perceiver::forward(Workspace& ws, Mat features) const {
  const BlockShape& b = shape_.block;
  const int64_t n = features.rows, m = shape_.latents, d = b.width, inner = b.q_width();
  const float scale = 1.0f / std::sqrt(static_cast<float>(b.head_dim));
  const Mat x = ws.take(m, d), seen = ws.take(n + m, d), kv = ws.take(n + m, 2 * inner), q = ws.take(m, inner);
  const Mat a = ws.take(m, inner), scratch = ws.take(m, b.scratch_width()), hidden = ws.take(m, b.hidden_width());
  const Mat context = seen.row_range(0, n), latents = seen.row_range(n, n + m);  // image first
  backend_.copy(Mat(*start_, m, d), x);
  for (const Layer& l : layers_) {
    backend_.norm(features, l.context_norm, context);
    backend_.norm(x, l.latents_norm, latents);
    backend_.linear(*l.q, latents, Activation::None, {}, q);
    backend_.linear(*l.kv, seen, Activation::None, {}, kv);
    const Mat k = kv.col_range(0, inner), v = kv.col_range(inner, 2 * inner);
    if (shape_.head_norms) {
      norm_heads(q, l.q_norm);
      norm_heads(k, l.k_norm);
    }
    backend_.attention(q, k, v, b.heads, scale, a);
    backend_.linear(*l.output, a, Activation::None, x, x);
    l.ffn.run(backend_, x, scratch, hidden, x, x);
  }
  backend_.norm(x, output_norm_, x);
  return x;
}

}  // namespace ke
