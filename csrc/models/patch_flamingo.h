// Flamingos that look at the patches of CLIP's tower (open_flamingo): patches -> perceiver -> a language model of layer
// norms, whose every n-th block has a gated cross-attention in front that looks at the last image. Which language model
// is left to each.
#pragma once
#include <string>

#include "models/flamingo.h"

namespace ke {

struct PatchFlamingoConfig : VisionLanguageConfig {
  PerceiverConfig perceiver;
  int64_t every = 0;                              // before blocks every - 1, 2 every - 1, ...
  int64_t heads = 0, head_dim = 0, ff_width = 0;  // of what looks at images
  int32_t image_token = 0;
  int32_t end_token = 0;  // of an answer and of an example
};

// All rows but those that the language model alone has.
Schema patch_flamingo_rows(const std::string& architecture, PatchFlamingoConfig& c);
ModelInfo patch_flamingo_info(const GgufFile& file, const std::string& architecture, const PatchFlamingoConfig& c);

// The language model's shape without its positions: layer norms, GELU. Biases and the output are as BlockShape and
// DecoderShape have them by default.
DecoderShape patch_flamingo_decoder(const PatchFlamingoConfig& c);
VisionLanguageParts patch_flamingo_parts(const PatchFlamingoConfig& c, DecoderShape decoder);

}  // namespace ke
