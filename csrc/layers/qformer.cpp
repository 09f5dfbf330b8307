#include "layers/qformer.h"

#include <cmath>

namespace ke {

Qformer::Qformer(Backend& backend, Weights& weights, const QformerShape& shape) : backend_(backend), shape_(shape) {
  const BlockShape& b = shape.block;
  const int64_t d = b.width;
  KE_ASSERT(b.post_norm && b.bias && b.kv_heads == b.heads && b.q_width() == d && shape.cross_every > 0);
  start_ = load_floats(backend, weights.floats("mm.query", {shape.queries, d}), shape.queries, d);
  const LoadedNorm norm = load_norm(backend, weights, "mm.query_norm", d, b.norm);
  const Mat start(*start_, shape.queries, d);
  backend.norm(start, norm, start);
  for (int64_t i = 0; i < shape.layers; i++) {
    const std::string prefix = concat("mm.blk.", i, ".");
    blocks_.emplace_back(backend, weights, b, decoder_names(), prefix);
    if (!shape.looks(i)) continue;
    const std::string n = prefix + "cross.";
    Cross c;
    c.q = load_linear(backend, weights, {{n + "attn_q", d}}, d, true);
    c.kv = load_linear(backend, weights, {{n + "attn_k", d}, {n + "attn_v", d}}, shape.feature_width, true);
    c.output = load_linear(backend, weights, {{n + "attn_output", d}}, d, true);
    c.norm = load_norm(backend, weights, n + "attn_norm", d, b.norm);
    cross_.push_back(std::move(c));
  }
  projection_ = load_linear(backend, weights, {{"mm.0", shape.width}}, d, true);
  backend.sync();  // the norm of the queries is gone when this returns
}

void Qformer::attend(Mat q, Mat k, Mat v, Mat out) const {
  const float scale = 1.0f / std::sqrt(static_cast<float>(shape_.block.head_dim));
  backend_.attention(q, k, v, shape_.block.heads, scale, out);
}

Mat Qformer::forward(Workspace& ws, Mat features) const {
  const BlockShape& b = shape_.block;
  const int64_t n = shape_.queries, d = b.width;
  const Mat x = ws.take(n, d), scratch = ws.take(n, b.scratch_width()), qkv = ws.take(n, b.qkv_width());
  const Mat a = ws.take(n, d), h = ws.take(n, b.hidden_width()), kv = ws.take(features.rows, 2 * d);
  backend_.copy(Mat(*start_, n, d), x);
  size_t crossed = 0;
  for (size_t i = 0; i < blocks_.size(); i++) {
    blocks_[i].project(x, scratch, qkv);
    attend(qkv.col_range(0, d), qkv.col_range(d, 2 * d), qkv.col_range(2 * d, 3 * d), a);
    blocks_[i].add_attention(a, scratch, x);
    if (shape_.looks(static_cast<int64_t>(i))) {
      const Cross& c = cross_[crossed++];
      const Mat q = qkv.col_range(0, d);
      backend_.linear(*c.q, x, Activation::None, {}, q);
      backend_.linear(*c.kv, features, Activation::None, {}, kv);
      attend(q, kv.col_range(0, d), kv.col_range(d, 2 * d), a);
      backend_.linear(*c.output, a, Activation::None, x, x);
      backend_.norm(x, c.norm, x);
    }
    blocks_[i].add_feed_forward(scratch, h, x);
  }
  const Mat y = ws.take(n, shape_.width);
  backend_.linear(*projection_, x, Activation::None, {}, y);
  return y;
}

}  // namespace ke
