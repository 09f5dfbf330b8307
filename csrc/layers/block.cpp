#include "layers/block.h"

#include <algorithm>

namespace ke {

int64_t BlockShape::scratch_width() const { return std::max({width, q_width(), ff_width}); }

Block::Block(Backend& backend, Weights& weights, const BlockShape& shape, const BlockNames& names,
             const std::string& prefix, Use use)
    : backend_(backend), shape_(shape) {
  const int64_t d = shape.width, ff = shape.ff_width, q = shape.q_width(), kv = shape.kv_width();
  const auto norm = [&](const std::string& name, int64_t n) {
    return load_norm(backend, weights, prefix + name, n, shape.norm);
  };
  const auto linear = [&](const std::vector<Part>& parts, int64_t in) {
    std::vector<Part> named;
    for (const Part& p : parts) named.push_back({prefix + p.name, p.out});
    return load_linear(backend, weights, named, in, shape.bias, use, &quantized_);
  };
  attn_norm_ = norm(names.attn_norm, d);
  qkv_ = linear({{"attn_q", q}, {"attn_k", kv}, {"attn_v", kv}}, d);
  if (shape.sub_norms) attn_sub_norm_ = norm("attn_sub_norm", q);
  attn_output_ = linear({{names.attn_output, d}}, q);
  ffn_norm_ = norm(names.ffn_norm, d);
  up_ = shape.gated ? linear({{"ffn_gate", ff}, {"ffn_up", ff}}, d) : linear({{"ffn_up", ff}}, d);
  if (shape.sub_norms) ffn_sub_norm_ = norm("ffn_sub_norm", ff);
  down_ = linear({{"ffn_down", d}}, ff);
}

void Block::product(Mat x, const Norm* norm, const Linear& w, Activation act, Mat residual, Mat scratch, Mat y) const {
  if (norm)
    backend_.norm_linear(x, *norm, w, act, residual, scratch.row_range(0, x.rows).col_range(0, x.cols), y);
  else
    backend_.linear(w, x, act, residual, y);
}

void Block::project(Mat x, Mat scratch, Mat qkv) const {
  const Norm norm = attn_norm_;
  product(x, shape_.post_norm ? nullptr : &norm, *qkv_, Activation::None, {}, scratch, qkv);
}

void Block::add_attention(Mat a, Mat scratch, Mat x) const {
  const Norm sub_norm = attn_sub_norm_;
  product(a, shape_.sub_norms ? &sub_norm : nullptr, *attn_output_, Activation::None, x, scratch, x);
  if (shape_.post_norm) backend_.norm(x, attn_norm_, x);
}

void Block::add_feed_forward(Mat scratch, Mat hidden, Mat x) const {
  const int64_t ff = shape_.ff_width;
  const Norm norm = ffn_norm_, sub_norm = ffn_sub_norm_;
  product(x, shape_.post_norm ? nullptr : &norm, *up_, shape_.gated ? Activation::None : shape_.activation, {}, scratch,
          hidden);
  const Mat h = hidden.col_range(0, ff);
  if (shape_.gated) backend_.gate(h, shape_.activation, hidden.col_range(ff, 2 * ff), h);
  product(h, shape_.sub_norms ? &sub_norm : nullptr, *down_, Activation::None, x, scratch, x);
  if (shape_.post_norm) backend_.norm(x, ffn_norm_, x);
}

}  // namespace ke
