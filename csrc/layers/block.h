// One transformer block of any stack: pre-norm or post-norm, either kind of norm, plain or
// gated feed-forward, shared key and value heads. The attention itself is between the two halves below, because
// stacks differ in what their rows see.
#pragma once
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "layers/load.h"

namespace ke {

struct BlockShape {
  int64_t width = 0, ff_width = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  NormShape norm;
  bool bias = true;            // of the products
  bool qkv_bias = false;       // of queries, keys and values, where the other products have none (Qwen2)
  bool post_norm = false;      // norms after the sums instead of before the products
  bool attn_sub_norm = false;  // one more norm before the attention's output product (Magneto)
  bool ffn_sub_norm = false;   // and before the feed-forward's second product
  bool qk_norm = false;        // one norm of all queries of a row, and one of all its keys (MPT)
  float ffn_sub_norm_eps = 0;  // 0: as the other norms
  Activation activation = Activation::GeluErf;
  bool gated = false;     // feed-forward act(gate x) * (up x) instead of act(up x)
  bool unscaled = false;  // scores are products of queries and keys as they are (T5)

  // By which scores of attention are multiplied.
  float score_scale() const { return unscaled ? 1.0f : 1.0f / std::sqrt(static_cast<float>(head_dim)); }
  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
  int64_t qkv_width() const { return q_width() + 2 * kv_width(); }
  int64_t hidden_width() const { return gated ? 2 * ff_width : ff_width; }  // of the first product of the feed-forward
  int64_t scratch_width() const;                                            // that the methods of Block need
};

// The names of a stack's tensors after its prefix; each is name.weight and name.bias.
struct BlockNames {
  std::string attn_norm, ffn_norm, attn_output;
};
inline BlockNames decoder_names() { return {"attn_norm", "ffn_norm", "attn_output"}; }
inline BlockNames vision_names() { return {"ln1", "ln2", "attn_out"}; }

// y = down(act(up norm(x))), or gated.
class FeedForward {
 public:
  FeedForward() = default;
  // norm_name: after the prefix. quantized: see load_linear.
  FeedForward(Backend& backend, Weights& weights, const BlockShape& shape, const std::string& prefix,
              const std::string& norm_name, MatmulUse use, bool* quantized);
  // y (n, width) = feed-forward of x + residual; with post_norm the norm of that. residual may be absent, or x and y.
  // scratch: (n, scratch_width), hidden: (n, hidden_width).
  void run(Backend& backend, Mat x, Mat scratch, Mat hidden, Mat residual, Mat y) const;

 private:
  BlockShape shape_;
  LoadedNorm norm_, sub_norm_;
  std::unique_ptr<Linear> up_;    // (hidden_width, width): gate, then up
  std::unique_ptr<Linear> down_;  // (width, ff_width)
};

class Block {
 public:
  // prefix: "blk.3."
  Block(Backend& backend, Weights& weights, const BlockShape& shape, const BlockNames& names, const std::string& prefix,
        MatmulUse use = MatmulUse::Any);

  // qkv (n, qkv_width) of rows x (n, width). scratch: (n, scratch_width).
  void project(Mat x, Mat scratch, Mat qkv) const;
  // x += output product of the attention's rows a (n, q_width); with post_norm x becomes the norm of the sum.
  void add_attention(Mat a, Mat scratch, Mat x) const;
  // x += feed-forward of x, likewise. hidden: (n, hidden_width).
  void add_feed_forward(Mat scratch, Mat hidden, Mat x) const;

  bool quantized() const { return quantized_; }  // some matrix is stored in blocks

 private:
  Backend& backend_;
  BlockShape shape_;
  bool quantized_ = false;
  LoadedNorm attn_norm_, q_norm_, k_norm_, attn_sub_norm_;
  std::unique_ptr<Linear> qkv_;          // (qkv_width, width)
  std::unique_ptr<Linear> attn_output_;  // (width, q_width)
  FeedForward ffn_;
};

}  // namespace ke
