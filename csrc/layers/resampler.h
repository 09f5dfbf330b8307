// Vision features -> a fixed number of image tokens: one cross-attention from learned latent queries
// (Kosmos2ImageToTextProjection; unilm XConnector), no residual, norm or feed-forward.
#pragma once
#include <vector>

#include "layers/load.h"
#include "layers/projector.h"
#include "layers/workspace.h"

namespace ke {

struct ResamplerShape {
  int64_t features, feature_width;  // rows and width of what the encoder gives
  int64_t latents, width, heads;
};

// Keys and values are [dense(features); latent queries]. What does not depend on the picture is computed once, at load:
// the projected queries, the latents' own keys and values, and the product of `dense` with the key and value matrices.
class Resampler final : public Projector {
 public:
  Resampler(Backend& backend, Weights& weights, const ResamplerShape& shape);

  int64_t rows(int64_t) const override { return shape_.latents; }
  Mat forward(Workspace& ws, Mat features) const override;  // of shape.features features

 private:
  Backend& backend_;
  ResamplerShape shape_;
  std::unique_ptr<Buffer> q_;          // (latents, width): Wq Q + bq
  std::unique_ptr<Buffer> latent_kv_;  // (latents, 2 * width): [Wk Q + bk, Wv Q + bv]
  std::unique_ptr<Linear> kv_;         // (2 * width, feature_width): [Wk Wd; Wv Wd], biases W bd + b
  std::unique_ptr<Linear> out_;        // (width, width)
};

}  // namespace ke
