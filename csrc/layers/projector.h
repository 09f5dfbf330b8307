// The projector between vision encoder and decoder: features -> rows of the decoder's width.
#pragma once
#include <memory>

#include "layers/load.h"
#include "layers/workspace.h"

namespace ke {

class Projector {
 public:
  virtual ~Projector() = default;
  // The number of rows for `features` features.
  virtual int64_t rows(int64_t features) const = 0;
  // features (n, feature_width) -> (rows(n), width), further on in the workspace.
  virtual Mat forward(Workspace& ws, Mat features) const = 0;
};

// One row per feature, or per `merged` features, or `split` rows per feature: mm.0, or mm.2 act(mm.0 x), with biases.
struct MlpShape {
  int64_t feature_width = 0, width = 0;
  int64_t products = 2;  // 1: linear
  Activation activation = Activation::GeluErf;
  int64_t merged = 1;  // features that follow each other and become one row, side by side; it divides their number
  int64_t split = 1;   // rows that the last product makes of each
};
std::unique_ptr<Projector> load_mlp(Backend& backend, Weights& weights, const MlpShape& shape);

}  // namespace ke
