// What models share whose decoder looks at an image through gated cross-attention, behind a perceiver resampler: its
// schema rows, their checks, both shapes.
#pragma once
#include <string>

#include "layers/perceiver.h"
#include "models/schema_groups.h"
#include "models/square_encoder.h"

namespace ke {

struct PerceiverConfig {
  int64_t layers = 0, heads = 0, head_dim = 0, ff_width = 0;
  int64_t latents = 0;  // rows of an image
  float eps = 0;
};
// <architecture>.perceiver.*
Schema perceiver_rows(const std::string& architecture, PerceiverConfig& p);
// Also that the rows of an image are as wide as the vision encoder, and that the decoder has a place for one.
void check_perceiver(const GgufFile& file, const std::string& architecture, const PerceiverConfig& p,
                     const VisionConfig& v);
// A flag that says whether there are norms of heads, of which `tensor` is one.
void check_head_norms(const GgufFile& file, const std::string& key, bool flag, const std::string& tensor);

PerceiverShape perceiver_shape(const PerceiverConfig& p, const VisionConfig& v);

// Images are looked at, and one token each stands in the sequence. vision: what the perceiver reads.
VisionLanguageParts flamingo_parts(const ImageInput& image, const VitShape& vision, const PerceiverShape& perceiver,
                                   DecoderShape decoder);

}  // namespace ke
