#include "layers/projector.h"

namespace ke {
namespace {

class Mlp final : public Projector {
 public:
  Mlp(Backend& backend, Weights& weights, const MlpShape& s) : backend_(backend), shape_(s) {
    KE_ASSERT(s.products == 1 || s.products == 2);
    first_ = load_linear(backend, weights, {{"mm.0", s.width}}, s.feature_width, true, MatmulUse::LargeBatch);
    if (s.products == 2)
      second_ = load_linear(backend, weights, {{"mm.2", s.width}}, s.width, true, MatmulUse::LargeBatch);
  }

  int64_t rows(int64_t features) const override { return features; }

  Mat forward(Workspace& ws, Mat features) const override {
    const Mat h = ws.take(features.rows, shape_.width);
    backend_.linear(*first_, features, second_ ? shape_.activation : Activation::None, {}, h);
    if (!second_) return h;
    const Mat y = ws.take(features.rows, shape_.width);
    backend_.linear(*second_, h, Activation::None, {}, y);
    return y;
  }

 private:
  Backend& backend_;
  MlpShape shape_;
  std::unique_ptr<Linear> first_, second_;  // (width, feature_width), (width, width)
};

}  // namespace

std::unique_ptr<Projector> load_mlp(Backend& backend, Weights& weights, const MlpShape& shape) {
  return std::make_unique<Mlp>(backend, weights, shape);
}

}  // namespace ke
