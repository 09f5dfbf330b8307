// The vision encoder: a pre-norm ViT (CLIP ViT-L/14 in KOSMOS-2), patches -> one feature per token, class token first.
#pragma once
#include <vector>

#include "base/cancel.h"
#include "layers/load.h"
#include "layers/workspace.h"

namespace ke {

struct VitShape {
  int64_t patches, patch_values;  // per picture; 3 * patch^2
  int64_t width, ff_width, layers, heads;
  float eps;
  int64_t tokens() const { return patches + 1; }
};

class Vit {
 public:
  Vit(Backend& backend, Weights& weights, const VitShape& shape);

  // patches: host (patches, patch_values), normalised. Returns (tokens, width) in the workspace: the last norm applied
  // to every token, each token then of Euclidean length 1.
  Mat forward(Workspace& ws, const float* patches, const CancelToken* cancel) const;

 private:
  struct Layer {
    LayerNorm ln1, ln2;
    std::unique_ptr<Linear> qkv;   // (3 * width, width)
    std::unique_ptr<Linear> out;   // (width, width)
    std::unique_ptr<Linear> up;    // (ff_width, width)
    std::unique_ptr<Linear> down;  // (width, ff_width)
  };
  Backend& backend_;
  VitShape shape_;
  std::unique_ptr<Linear> patch_embd_;     // (width, patch_values), no bias
  std::unique_ptr<Buffer> class_embd_;     // (width)
  std::unique_ptr<Buffer> position_embd_;  // (tokens, width)
  LayerNorm pre_ln_, post_ln_;
  Precision precision_ = Precision::Float;  // of the attention: Rounded where the products are
  std::vector<Layer> layers_;
};

}  // namespace ke
