#include "layers/projector.h"

namespace ke {
namespace {

class Mlp final : public Projector {
 public:
  Mlp(Backend& backend, Weights& weights, const MlpShape& s) : backend_(backend), shape_(s) {
    KE_ASSERT(s.products == 1 || (s.products == 2 && s.split == 1));
    first_ = load_linear(backend, weights, {{"mm.0", s.width * s.split}}, s.feature_width * s.merged, true,
                         MatmulUse::LargeBatch);
    if (s.products == 2)
      second_ = load_linear(backend, weights, {{"mm.2", s.width}}, s.width, true, MatmulUse::LargeBatch);
  }

  int64_t rows(int64_t features) const override { return features / shape_.merged * shape_.split; }

  Mat forward(Workspace& ws, Mat features) const override {
    if (shape_.merged > 1) {  // rows that follow each other in memory are one longer row
      KE_ASSERT(features.stride == features.cols && features.rows % shape_.merged == 0);
      const int64_t cols = features.cols * shape_.merged;
      features = Mat(features.data, features.rows / shape_.merged, cols, cols);
    }
    const Mat h = ws.take(features.rows, shape_.width * shape_.split);
    backend_.linear(*first_, features, second_ ? shape_.activation : Activation::None, {}, h);
    if (!second_) return Mat(h.data, h.rows * shape_.split, shape_.width, shape_.width);
    const Mat y = ws.take(features.rows, shape_.width);
    backend_.linear(*second_, h, Activation::None, {}, y);
    return y;
  }

 private:
  Backend& backend_;
  MlpShape shape_;
  std::unique_ptr<Linear> first_, second_;  // (width, merged * feature_width), (width, width)
};

}  // namespace

std::unique_ptr<Projector> load_mlp(Backend& backend, Weights& weights, const MlpShape& shape) {
  return std::make_unique<Mlp>(backend, weights, shape);
}

}  // namespace ke
