#include "layers/cross.h"

#include <cmath>

#include "base/error.h"

namespace ke {

CrossBlock::CrossBlock(Backend& backend, Weights& weights, const CrossShape& shape, const std::string& prefix)
    : backend_(backend), shape_(shape) {
  const BlockShape& b = shape.block;
  const std::string n = prefix + "cross.";
  const auto linear = [&](const char* name, int64_t out, int64_t in) {
    return load_linear(backend, weights, {{n + name, out}}, in, b.bias);
  };
  attn_norm_ = load_norm(backend, weights, n + "attn_norm", b.width, b.norm);
  q_ = linear("attn_q", b.q_width(), b.width);
  k_ = linear("attn_k", b.kv_width(), shape.memory_width);
  v_ = linear("attn_v", b.kv_width(), shape.memory_width);
  if (shape.head_norms) {
    q_norm_ = load_norm(backend, weights, n + "attn_q_norm", b.head_dim, b.norm);
    k_norm_ = load_norm(backend, weights, n + "attn_k_norm", b.head_dim, b.norm);
  }
  output_ = linear("attn_output", b.width, b.q_width());
  if (shape.within) return;
  attn_gate_ = std::tanh(weights.vector(n + "attn_alpha", 1)[0]);
  ffn_ = FeedForward(backend, weights, b, n, "ffn_norm", MatmulUse::Any, nullptr);
  ffn_gate_ = std::tanh(weights.vector(n + "ffn_alpha", 1)[0]);
}

// The rows of all heads, stacked; x is contiguous.
Mat CrossBlock::heads_of(Mat x, int64_t heads) const {
  KE_ASSERT(x.stride == x.cols);
  return {x.data, x.rows * heads, x.cols / heads, x.cols / heads};
}

void CrossBlock::project_memory(Mat features, Mat kv) const {
  const BlockShape& b = shape_.block;
  const Mat k = kv.col_range(0, b.kv_width());
  backend_.linear(*k_, features, Activation::None, {}, k);
  backend_.linear(*v_, features, Activation::None, {}, kv.col_range(b.kv_width(), 2 * b.kv_width()));
  if (!shape_.head_norms) return;
  for (int64_t h = 0; h < b.kv_heads; h++) {
    const Mat head = k.col_range(h * b.head_dim, (h + 1) * b.head_dim);
    backend_.norm(head, k_norm_, head);
  }
}

void CrossBlock::project(Mat x, Mat scratch, Mat q) const {
  const BlockShape& b = shape_.block;
  backend_.norm_linear(x, attn_norm_, *q_, Activation::None, {}, scratch.col_range(0, b.width), q);
  if (shape_.head_norms) backend_.norm(heads_of(q, b.heads), q_norm_, heads_of(q, b.heads));
}

void CrossBlock::add_attention(Mat q, Mat kv, Mat a, Mat y, Mat x) const {
  const BlockShape& b = shape_.block;
  const Mat k = kv.col_range(0, b.kv_width()), v = kv.col_range(b.kv_width(), 2 * b.kv_width());
  backend_.attention(q, k, v, b.heads, b.score_scale(), a);
  if (shape_.within) return backend_.linear(*output_, a, Activation::None, x, x);
  backend_.linear(*output_, a, Activation::None, {}, y);
  backend_.add_scaled(y, attn_gate_, x);
}

void CrossBlock::add_feed_forward(Mat scratch, Mat hidden, Mat y, Mat x) const {
  if (shape_.within) return;
  ffn_.run(backend_, x, scratch, hidden, {}, y);
  backend_.add_scaled(y, ffn_gate_, x);
}

}  // namespace ke
