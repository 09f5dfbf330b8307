// Vision features -> a fixed number of rows: Flamingo's perceiver resampler. Learned latents look, block by block, at
// the features and at themselves (transformers IdeficsPerceiverResampler, open_flamingo PerceiverResampler).
#pragma once
#include <memory>
#include <vector>

#include "layers/block.h"
#include "layers/projector.h"

namespace ke {

struct PerceiverShape {
  BlockShape block;  // pre-norm, without biases in the products; the width of features, latents and rows
  int64_t layers = 0, latents = 0;
  bool head_norms = false;  // norms of each head's queries and keys, with the block's kind and epsilon
};

// mm.query (latents, width), mm.output_norm; mm.blk.N.{attn_norm,attn_q,attn_k,attn_v,attn_output,ffn_norm,ffn_up,
// ffn_down} as a decoder's, context_norm of the features, and attn_q_norm and attn_k_norm (head_dim) of the heads.
class Perceiver final : public Projector {
 public:
  Perceiver(Backend& backend, Weights& weights, const PerceiverShape& shape);

  int64_t rows(int64_t) const override { return shape_.latents; }
  Mat forward(Workspace& ws, Mat features) const override;

 private:
  struct Layer {
    LoadedNorm latents_norm, context_norm, q_norm, k_norm;
    std::unique_ptr<Linear> q, kv, output;  // kv: keys, then values
    FeedForward ffn;
  };
  void norm_heads(Mat x, const LoadedNorm& norm) const;

  Backend& backend_;
  PerceiverShape shape_;
  std::unique_ptr<Buffer> start_;  // (latents, width)
  std::vector<Layer> layers_;
  LoadedNorm output_norm_;
};

}  // namespace ke
