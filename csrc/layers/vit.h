// The vision encoder: a ViT of pre-norm or post-norm blocks (v.blk.N.*, see block.h), patches -> one feature per patch
// and, in front, of a class token.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/cancel.h"
#include "layers/block.h"
#include "layers/load.h"
#include "layers/workspace.h"

namespace ke {

struct VitShape {
  BlockShape block;
  int64_t patches = 0, patch_values = 0;  // per image; 3 * patch^2
  int64_t layers = 0;        // blocks that run: fewer than in training if an inner layer gives the features
  bool class_token = true;   // v.class_embd is before the patches
  bool patch_bias = false;   // v.patch_embd.bias
  bool pre_norm = true;      // v.pre_ln after the embeddings
  bool post_norm = true;     // v.post_ln after the blocks, on every token
  float post_eps = 0;        // of v.post_ln; 0: as the blocks'
  bool keep_class = true;    // the class token is a feature, too
  bool only_class = false;   // the class token is the only feature
  bool unit_length = false;  // each feature is normalised to Euclidean length 1
  // Features are those behind these numbers of blocks, side by side in this order, without the last norm and length;
  // empty: behind the last block.
  std::vector<int64_t> taken{};
  int64_t tokens() const { return patches + (class_token ? 1 : 0); }
  int64_t features() const { return only_class ? 1 : class_token && keep_class ? patches + 1 : patches; }
  int64_t feature_width() const { return block.width * std::max<int64_t>(1, static_cast<int64_t>(taken.size())); }
};

class Vit {
 public:
  Vit(Backend& backend, Weights& weights, const VitShape& shape);

  // patches: host (patches, patch_values), normalised. Returns (features, feature_width) in the workspace.
  Mat forward(Workspace& ws, const float* patches, const CancelToken* cancel) const;

 private:
  Backend& backend_;
  VitShape shape_;
  std::unique_ptr<Linear> patch_embd_;     // (width, patch_values)
  std::unique_ptr<Buffer> class_embd_;     // (width)
  std::unique_ptr<Buffer> position_embd_;  // (tokens, width)
  LoadedNorm pre_ln_, post_ln_;
  ScoreType score_type_ = ScoreType::Float;  // of the attention: Int8 where the blocks' products are
  std::vector<Block> blocks_;
};

}  // namespace ke
