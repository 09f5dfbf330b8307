#include "layers/vit.h"

#include <cmath>

namespace ke {

Vit::Vit(Backend& backend, Weights& weights, const VitShape& shape) : backend_(backend), shape_(shape) {
  const int64_t d = shape.width, ff = shape.ff_width;
  const int64_t p = std::llround(std::sqrt(static_cast<double>(shape.patch_values) / 3));
  Tensor kernel = weights.tensor("v.patch_embd.weight", {d, 3, p, p});  // a convolution whose stride is its size
  kernel.shape = {d, shape.patch_values};
  patch_embd_ = backend.upload({kernel}, nullptr);
  weights.release(kernel);
  class_embd_ = load_floats(backend, weights.vector("v.class_embd", d), 1, d);
  position_embd_ =
      load_floats(backend, weights.floats("v.position_embd.weight", {shape.tokens(), d}), shape.tokens(), d);
  pre_ln_ = load_norm(backend, weights, "v.pre_ln", d, shape.eps);
  for (int64_t i = 0; i < shape.layers; i++) {
    const std::string n = concat("v.blk.", i, ".");
    Layer layer;
    layer.ln1 = load_norm(backend, weights, n + "ln1", d, shape.eps);
    layer.qkv = load_linear(backend, weights, {n + "attn_q", n + "attn_k", n + "attn_v"}, d, d, Use::ManyRows);
    layer.out = load_linear(backend, weights, {n + "attn_out"}, d, d, Use::ManyRows);
    layer.ln2 = load_norm(backend, weights, n + "ln2", d, shape.eps);
    layer.up = load_linear(backend, weights, {n + "ffn_up"}, ff, d, Use::ManyRows);
    layer.down = load_linear(backend, weights, {n + "ffn_down"}, d, ff, Use::ManyRows);
    layers_.push_back(std::move(layer));
  }
  post_ln_ = load_norm(backend, weights, "v.post_ln", d, shape.eps);

  const DType stored = weights.matrix("v.blk.0.attn_k.weight", d, d).dtype;
  if (dtype_info(stored).block_elems > 1) precision_ = Precision::Rounded;
}

Mat Vit::forward(Workspace& ws, const float* patches, const CancelToken* cancel) const {
  const int64_t n = shape_.tokens(), d = shape_.width;
  Mat x = ws.mat(0, n, d), scratch = ws.mat(1, n, d), qkv = ws.mat(2, n, 3 * d), a = ws.mat(3, n, d);
  Mat h = ws.mat(4, n, shape_.ff_width), pixels = ws.mat(5, shape_.patches, shape_.patch_values);
  const float scale = 1.0f / std::sqrt(static_cast<float>(d / shape_.heads));

  // X0 = [class; patch convolution] + position   (CLIPVisionEmbeddings.forward)
  backend_.write(patches, pixels);
  backend_.copy(Mat(*class_embd_, 1, d), x.row_range(0, 1));
  backend_.linear(*patch_embd_, pixels, Activation::None, {}, x.row_range(1, n));
  backend_.add(Mat(*position_embd_, n, d), x);
  backend_.norm(x, pre_ln_, x);

  for (const Layer& layer : layers_) {  // Kosmos2VisionEncoderLayer.forward
    if (cancel) cancel->check();
    backend_.norm_linear(x, layer.ln1, *layer.qkv, Activation::None, {}, scratch, qkv);
    backend_.attention(qkv.col_range(0, d), qkv.col_range(d, 2 * d), qkv.col_range(2 * d, 3 * d), shape_.heads, scale,
                       a, precision_);
    backend_.linear(*layer.out, a, Activation::None, x, x);  // x += Wo MHA(LN1 x)
    if (cancel) cancel->check();
    backend_.norm_linear(x, layer.ln2, *layer.up, Activation::QuickGelu, {}, scratch, h);  // fc1
    backend_.linear(*layer.down, h, Activation::None, x, x);                               // x += fc2
  }
  backend_.norm(x, post_ln_, x);  // on all tokens, unlike CLIP's own use of the tower
  backend_.l2_normalize(x, 1e-12f);
  return x;
}

}  // namespace ke
