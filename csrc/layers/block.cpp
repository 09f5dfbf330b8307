#include "layers/block.h"

#include <algorithm>

namespace ke {

int64_t BlockShape::scratch_width() const { return std::max({width, q_width(), ffn_sub_norm ? ff_width : 0}); }

namespace {

std::unique_ptr<Linear> load_parts(Backend& backend, Weights& weights, const std::string& prefix,
                                   std::vector<Part> parts, int64_t in, bool bias, MatmulUse use, bool* quantized) {
  for (Part& p : parts) p.name = prefix + p.name;
  return load_linear(backend, weights, parts, in, bias, use, quantized);
}

// y = act(w norm(x)) + residual, without the norm if there is none.
void product(Backend& backend, Mat x, const LoadedNorm* norm, const Linear& w, Activation act, Mat residual,
             Mat scratch, Mat y) {
  if (norm)
    backend.norm_linear(x, *norm, w, act, residual, scratch.row_range(0, x.rows).col_range(0, x.cols), y);
  else
    backend.linear(w, x, act, residual, y);
}

}  // namespace

FeedForward::FeedForward(Backend& backend, Weights& weights, const BlockShape& shape, const std::string& prefix,
                         const std::string& norm_name, MatmulUse use, bool* quantized)
    : shape_(shape) {
  const int64_t d = shape.width, ff = shape.ff_width;
  norm_ = load_norm(backend, weights, prefix + norm_name, d, shape.norm);
  std::vector<Part> up;
  if (shape.gated) up.push_back({"ffn_gate", ff});
  up.push_back({"ffn_up", ff});
  up_ = load_parts(backend, weights, prefix, up, d, shape.bias, use, quantized);
  if (shape.ffn_sub_norm) {
    NormShape norm = shape.norm;
    if (shape.ffn_sub_norm_eps > 0) norm.eps = shape.ffn_sub_norm_eps;
    sub_norm_ = load_norm(backend, weights, prefix + "ffn_sub_norm", ff, norm);
  }
  down_ = load_parts(backend, weights, prefix, {{"ffn_down", d}}, ff, shape.bias, use, quantized);
}

void FeedForward::run(Backend& backend, Mat x, Mat scratch, Mat hidden, Mat residual, Mat y) const {
  const int64_t ff = shape_.ff_width;
  const Activation first = shape_.gated ? Activation::None : shape_.activation;
  product(backend, x, shape_.post_norm ? nullptr : &norm_, *up_, first, {}, scratch, hidden);
  const Mat h = hidden.col_range(0, ff);
  if (shape_.gated) backend.gate(h, shape_.activation, hidden.col_range(ff, 2 * ff), h);
  product(backend, h, shape_.ffn_sub_norm ? &sub_norm_ : nullptr, *down_, Activation::None, residual, scratch, y);
  if (shape_.post_norm) backend.norm(y, norm_, y);
}

Block::Block(Backend& backend, Weights& weights, const BlockShape& shape, const BlockNames& names,
             const std::string& prefix, MatmulUse use)
    : backend_(backend), shape_(shape) {
  const int64_t d = shape.width, q = shape.q_width(), kv = shape.kv_width();
  attn_norm_ = load_norm(backend, weights, prefix + names.attn_norm, d, shape.norm);
  qkv_ = load_parts(backend, weights, prefix, {{"attn_q", q}, {"attn_k", kv}, {"attn_v", kv}}, d,
                    shape.bias || shape.qkv_bias, use, &quantized_);
  if (shape.qk_norm) {
    q_norm_ = load_norm(backend, weights, prefix + "attn_q_norm", q, shape.norm);
    k_norm_ = load_norm(backend, weights, prefix + "attn_k_norm", kv, shape.norm);
  }
  if (shape.attn_sub_norm) attn_sub_norm_ = load_norm(backend, weights, prefix + "attn_sub_norm", q, shape.norm);
  attn_output_ = load_parts(backend, weights, prefix, {{names.attn_output, d}}, q, shape.bias, use, &quantized_);
  ffn_ = FeedForward(backend, weights, shape, prefix, names.ffn_norm, use, &quantized_);
}

void Block::project(Mat x, Mat scratch, Mat qkv) const {
  product(backend_, x, shape_.post_norm ? nullptr : &attn_norm_, *qkv_, Activation::None, {}, scratch, qkv);
  if (!shape_.qk_norm) return;
  const Mat q = qkv.col_range(0, shape_.q_width()), k = qkv.col_range(q.cols, q.cols + shape_.kv_width());
  backend_.norm(q, q_norm_, q);
  backend_.norm(k, k_norm_, k);
}

void Block::add_attention(Mat a, Mat scratch, Mat x) const {
  product(backend_, a, shape_.attn_sub_norm ? &attn_sub_norm_ : nullptr, *attn_output_, Activation::None, x, scratch,
          x);
  if (shape_.post_norm) backend_.norm(x, attn_norm_, x);
}

void Block::add_feed_forward(Mat scratch, Mat hidden, Mat x) const { ffn_.run(backend_, x, scratch, hidden, x, x); }

}  // namespace ke
