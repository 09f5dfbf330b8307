// An image encoder for images of one size: a ViT, and a projector of its features.
#pragma once
#include <array>
#include <functional>
#include <memory>
#include <string>

#include "layers/projector.h"
#include "layers/vit.h"
#include "models/vision_language.h"

namespace ke {

// What an image becomes on the host: a square of image_size x image_size pixels, in patches.
struct ImageInput {
  int64_t image_size = 0, patch_size = 0;
  std::array<float, 3> mean{}, std{};  // of pixels / 255
  Fit fit = Fit::Squash;               // padding has the mean's colour, rounded down
};
ImageInput image_input(const VisionConfig& v, Fit fit = Fit::Squash);
std::string preprocessing_of(const ImageInput& image);  // for people

// Of a model whose file has clip.vision.*.
struct VisionLanguageConfig : LanguageConfig {
  VisionConfig vision;
  bool rows_in_sequence = true;  // else vision.projection may differ from the decoder's width
};
// language_info, with the checks of the vision encoder.
ModelInfo vision_language_info(const GgufFile& file, const std::string& architecture, const VisionLanguageConfig& c);

struct SquareParts {
  ImageInput image;
  VitShape vision;
  // Of vision's features; one of the two.
  std::function<std::unique_ptr<Projector>(Backend&, Weights&)> load_projector;
  std::function<std::unique_ptr<WordsReader>(Backend&, Weights&)> load_reader;
};
// The parts of a model with such an encoder.
VisionLanguageParts square_parts(SquareParts parts, DecoderShape decoder, bool rows_in_sequence = true);

}  // namespace ke
