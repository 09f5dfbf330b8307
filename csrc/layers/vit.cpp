#include "layers/vit.h"

#include <cmath>

namespace ke {

Vit::Vit(Backend& backend, Weights& weights, const VitShape& shape) : backend_(backend), shape_(shape) {
  const int64_t d = shape.block.width;
  const int64_t p = std::llround(std::sqrt(static_cast<double>(shape.patch_values) / 3));
  Tensor kernel = weights.tensor("v.patch_embd.weight", {d, 3, p, p});  // a convolution whose stride is its size
  kernel.shape = {d, shape.patch_values};
  const std::vector<float> bias = shape.patch_bias ? weights.vector("v.patch_embd.bias", d) : std::vector<float>();
  patch_embd_ = backend.upload({kernel}, shape.patch_bias ? bias.data() : nullptr);
  weights.release(kernel);
  if (shape.class_token) class_embd_ = load_floats(backend, weights.vector("v.class_embd", d), 1, d);
  position_embd_ =
      load_floats(backend, weights.floats("v.position_embd.weight", {shape.tokens(), d}), shape.tokens(), d);
  if (shape.pre_norm) pre_ln_ = load_norm(backend, weights, "v.pre_ln", d, shape.block.norm);
  for (int64_t i = 0; i < shape.layers; i++) {
    blocks_.emplace_back(backend, weights, shape.block, vision_names(), concat("v.blk.", i, "."),
                         MatmulUse::LargeBatch);
    if (blocks_.back().quantized()) score_type_ = ScoreType::Int8;
  }
  NormShape post = shape.block.norm;
  if (shape.post_eps > 0) post.eps = shape.post_eps;
  if (shape.post_norm) post_ln_ = load_norm(backend, weights, "v.post_ln", d, post);
}

Mat Vit::forward(Workspace& ws, const float* patches, const CancelToken* cancel) const {
  const BlockShape& b = shape_.block;
  const int64_t n = shape_.tokens(), d = b.width, q = b.q_width(), kv = b.kv_width();
  ws.begin();
  Mat x = ws.take(n, d), scratch = ws.take(n, b.scratch_width()), qkv = ws.take(n, b.qkv_width()), a = ws.take(n, q);
  Mat h = ws.take(n, b.hidden_width()), pixels = ws.take(shape_.patches, shape_.patch_values);
  const float scale = 1.0f / std::sqrt(static_cast<float>(b.head_dim));

  // X0 = [class; patch convolution] + position   (CLIPVisionEmbeddings.forward)
  backend_.write(patches, pixels);
  if (shape_.class_token) backend_.copy(Mat(*class_embd_, 1, d), x.row_range(0, 1));
  backend_.linear(*patch_embd_, pixels, Activation::None, {}, x.row_range(n - shape_.patches, n));
  backend_.add(Mat(*position_embd_, n, d), x);
  if (shape_.pre_norm) backend_.norm(x, pre_ln_, x);

  const auto features_of = [&](Mat m) {
    return shape_.only_class ? m.row_range(0, 1) : m.row_range(n - shape_.features(), n);
  };
  Mat taken;
  if (!shape_.taken.empty()) taken = ws.take(shape_.features(), shape_.feature_width());
  int64_t done = 0;
  for (const Block& block : blocks_) {
    if (cancel) cancel->check();
    block.project(x, scratch, qkv);
    backend_.attention(qkv.col_range(0, q), qkv.col_range(q, q + kv), qkv.col_range(q + kv, q + 2 * kv), b.heads, scale,
                       a, score_type_);
    block.add_attention(a, scratch, x);
    if (cancel) cancel->check();
    block.add_feed_forward(scratch, h, x);
    done++;
    for (size_t i = 0; i < shape_.taken.size(); i++) {
      const int64_t at = static_cast<int64_t>(i) * d;
      if (shape_.taken[i] == done) backend_.copy(features_of(x), taken.col_range(at, at + d));
    }
  }
  if (!shape_.taken.empty()) return taken;
  if (shape_.post_norm) backend_.norm(x, post_ln_, x);
  if (shape_.unit_length) backend_.l2_normalize(x, 1e-12f);
  return features_of(x);
}

}  // namespace ke
