// What the models of the KOSMOS family share: a CLIP tower, the resampler, Magneto with sinusoids, and images of a
// fixed number of rows with ids in a row between <image> and </image>.
#pragma once
#include <string>

#include "models/square_encoder.h"

namespace ke {

struct KosmosConfig : VisionLanguageConfig {
  ImagePlaceholders placeholders;  // image tokens
};

// The schema of a model without location tokens; one that has them adds its own rows.
Schema kosmos_rows(const std::string& architecture, KosmosConfig& c);
// Checked, still without grounding and facts.
ModelInfo kosmos_info(const GgufFile& file, const std::string& architecture, const KosmosConfig& c,
                      const VocabularyCheck& vocabulary);
VisionLanguageParts kosmos_parts(const KosmosConfig& c);
// Their decoder: Magneto, with both sub-norms.
DecoderShape magneto(const DecoderConfig& d);

}  // namespace ke
