// What models whose image encoder is EVA-CLIP's tower behind a Q-Former share: the Q-Former's schema rows, their
// checks, both shapes.
#pragma once
#include <string>

#include "layers/qformer.h"
#include "layers/vit.h"
#include "models/schema_groups.h"
#include "models/square_encoder.h"

namespace ke {

struct QformerConfig {
  int64_t width = 0, ff_width = 0, layers = 0, heads = 0;
  int64_t queries = 0;      // rows of an image
  int64_t cross_every = 0;  // blocks 0, cross_every, ... look at the image
  float eps = 0;
};
// <architecture>.qformer.*
Schema qformer_rows(const std::string& architecture, QformerConfig& q);
// Also that an image has room in the decoder's context.
void check_qformer(const GgufFile& file, const std::string& architecture, const QformerConfig& q,
                   const DecoderConfig& d);

QformerShape qformer_shape(const QformerConfig& q, const VisionConfig& v, const DecoderConfig& d);
// Images are squashed to a square.
SquareParts bridge_parts(const QformerConfig& q, const VisionConfig& v, const DecoderConfig& d);

}  // namespace ke
