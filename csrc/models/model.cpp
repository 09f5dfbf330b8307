#include "models/model.h"

#include <atomic>

#include "base/error.h"

namespace ke {

static std::atomic<uint64_t> models_made{0};

Model::Model(ModelInfo info) : info_(std::move(info)), serial_(++models_made) {}

PreparedImage::PreparedImage(const Model& m, const ImageView& image)
    : model(m.serial()), width(image.width), height(image.height) {}

ImageFeatures::ImageFeatures(const Model& m, int64_t n) : model(m.serial()), rows(n) {}

std::unique_ptr<const CrossMemory> Model::read_source(const std::vector<InputRow>&, const CancelToken*) const {
  fail(ErrorCode::InvalidRequest, "this model has no encoder that reads prompts");
}

std::vector<float> Model::embed_texts(std::span<const std::vector<int32_t>>, const CancelToken*) const {
  fail(ErrorCode::InvalidRequest, kComparesNot);
}

}  // namespace ke
