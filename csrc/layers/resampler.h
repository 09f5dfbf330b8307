// Vision features -> a fixed number of image tokens: one cross-attention from learned latent queries
// (Kosmos2ImageToTextProjection; unilm XConnector), no residual, norm or feed-forward.
#pragma once
#include <vector>

#include "base/cancel.h"
#include "layers/load.h"
#include "layers/projector.h"
#include "layers/workspace.h"

namespace ke {

struct ResamplerShape {
  int64_t features, feature_width;  // rows, at most, and width of what the encoder gives
  int64_t latents, width, heads;
  bool weighted = false;  // the last feature may stand for several, see Resampler::forward_weighted
};

// Keys and values are [dense(features); latent queries]. What does not depend on the image is computed once, at load:
// the projected queries, the latents' own keys and values, and the product of `dense` with the key and value matrices.
class Resampler final : public Projector {
 public:
  Resampler(Backend& backend, Weights& weights, const ResamplerShape& shape);

  int64_t rows(int64_t) const override { return shape_.latents; }
  Mat forward(Workspace& ws, Mat features) const override { return forward_weighted(ws, features, 1); }
  // As if the last feature were there `copies` times. Only of a weighted resampler, or copies is 1.
  Mat forward_weighted(Workspace& ws, Mat features, int64_t copies, const CancelToken* cancel = nullptr) const;

 private:
  // A weighted resampler's heads are 8 values wider. The first of them is 1 in each query and 0 in each key, but
  // ln(copies) / scale in the last feature's key: that adds ln(copies) to its scores, which makes its share of the
  // softmax that of `copies` equal keys. Everything else that is added is 0.
  int64_t head_width() const { return shape_.width / shape_.heads; }
  int64_t wide_head() const { return head_width() + (shape_.weighted ? 8 : 0); }
  int64_t wide() const { return wide_head() * shape_.heads; }
  // rows (m, width) -> (m, wide), with `extra` in the first added value of each head.
  std::vector<float> widen(const std::vector<float>& rows, float extra) const;

  // For calibration: the inputs of the matrices that are folded. a: of the last one, (latents, wide).
  void observe(Workspace& ws, Mat features, Mat a) const;

  Backend& backend_;
  ResamplerShape shape_;
  std::unique_ptr<Buffer> q_;          // (latents, wide): Wq Q + bq
  std::unique_ptr<Buffer> latent_kv_;  // (latents, 2 * wide): [Wk Q + bk, Wv Q + bv]
  std::unique_ptr<Linear> kv_;         // (2 * wide, feature_width): [Wk Wd; Wv Wd], biases W bd + b
  std::unique_ptr<Linear> out_;        // (width, wide)
  std::unique_ptr<Linear> dense_;      // (width, feature_width), as in the file; only where products are recorded
  std::unique_ptr<Buffer> query_;      // (latents, width), likewise
};

}  // namespace ke
