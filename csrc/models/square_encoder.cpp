#include "models/square_encoder.h"

#include <algorithm>
#include <utility>

namespace ke {
namespace {

// An image of the encoder's size.
struct SquareImage : PreparedImage {
  using PreparedImage::PreparedImage;
  std::vector<uint8_t> rgb;
};

class SquareEncoder : public ImageEncoder {
 public:
  SquareEncoder(Backend& backend, Weights& weights, const SquareParts& parts)
      : image_(parts.image),
        vit_(backend, weights, parts.vision),
        projector_(parts.load_projector ? parts.load_projector(backend, weights) : nullptr),
        reader_(parts.load_reader ? parts.load_reader(backend, weights) : nullptr),
        rows_(projector_ ? projector_->rows(parts.vision.features()) : parts.vision.features()) {
    KE_ASSERT((projector_ != nullptr) != (reader_ != nullptr));
  }

  std::unique_ptr<const PreparedImage> prepare(const Model& model, const ImageView& image,
                                               const CancelToken* cancel) const override {
    auto square = std::make_unique<SquareImage>(model, image);
    std::array<uint8_t, 3> colour{};
    for (size_t c = 0; c < colour.size(); c++)
      colour[c] = static_cast<uint8_t>(std::clamp(double{image_.mean[c]} * 255, 0.0, 255.0));
    square->rgb = fit_square(image, image_.image_size, image_.fit, colour, cancel);
    return square;
  }

  Mat encode(Workspace& ws, const PreparedImage& image, const CancelToken* cancel) const override {
    const std::vector<uint8_t>& rgb = static_cast<const SquareImage&>(image).rgb;
    const std::vector<float> patches = to_patches(rgb, image_.image_size, image_.patch_size, image_.mean, image_.std);
    const Mat features = vit_.forward(ws, patches.data(), cancel);
    if (cancel) cancel->check();
    return projector_ ? projector_->forward(ws, features) : features;
  }

  int64_t rows() const override { return rows_; }
  const WordsReader* reader() const override { return reader_.get(); }

 private:
  const ImageInput image_;
  const Vit vit_;
  const std::unique_ptr<Projector> projector_;
  const std::unique_ptr<WordsReader> reader_;
  const int64_t rows_;
};

}  // namespace

ImageInput image_input(const VisionConfig& v, Fit fit) { return {v.image_size, v.patch_size, v.mean, v.std, fit}; }

std::string preprocessing_of(const ImageInput& image) {
  const std::string size = concat(image.image_size, " x ", image.image_size);
  switch (image.fit) {
    case Fit::Pad:
      return concat("padded to a square, then resized to ", size);
    case Fit::Crop:
      return concat("shorter side resized to ", image.image_size, ", then the middle ", size, " cut out");
    case Fit::Squash:
      break;
  }
  return concat("resized to ", size, ", aspect not kept");
}

ModelInfo vision_language_info(const GgufFile& file, const std::string& architecture, const VisionLanguageConfig& c) {
  check_vision(file, c.vision);
  check_file(file, !c.rows_in_sequence || c.vision.projection == c.decoder.width, "clip.vision.projection_dim is ",
             c.vision.projection, "; expected ", architecture, ".embedding_length, ", c.decoder.width);
  ModelInfo info = language_info(file, architecture, c);
  info.preprocessing = preprocessing_of(image_input(c.vision));
  return info;
}

VisionLanguageParts square_parts(SquareParts parts, DecoderShape decoder, bool rows_in_sequence) {
  return {[parts = std::move(parts)](Backend& backend, Weights& weights) {
            return std::make_unique<SquareEncoder>(backend, weights, parts);
          },
          std::move(decoder), rows_in_sequence};
}

}  // namespace ke
