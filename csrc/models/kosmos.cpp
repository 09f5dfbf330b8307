#include "models/kosmos.h"

#include <cmath>

#include "layers/resampler.h"
#include "models/shapes.h"

namespace ke {

// Magneto with sinusoids, tied embedding and output (transformers modeling_kosmos2.py Kosmos2TextTransformer; KOSMOS-2
// paper, section 3.1). Image rows are scaled like token embeddings.
DecoderShape magneto(const DecoderConfig& d) {
  DecoderShape s;
  s.block = plain_block(d.width, d.ff_width, d.heads, d.eps);
  s.block.attn_sub_norm = s.block.ffn_sub_norm = true;
  s.layers = d.layers, s.vocab = d.vocab, s.context = d.context;
  s.embedding_scale = std::sqrt(static_cast<float>(d.width));
  s.position = SinusoidPositions{.offset = 2};
  return s;
}

Schema kosmos_rows(const std::string& architecture, KosmosConfig& c) {
  return general_rows(architecture, c.general) + decoder_rows(architecture, c.decoder) +
         placeholder_rows(architecture, c.placeholders) + generation_rows(architecture, c.generation) +
         prompt_rows(architecture, c.prompts) + vision_rows(architecture, c.vision) +
         unigram_rows(architecture, c.tokenizer);
}

ModelInfo kosmos_info(const GgufFile& file, const std::string& architecture, const KosmosConfig& c,
                      const VocabularyCheck& vocabulary) {
  check_placeholders(file, architecture, c.placeholders, c.decoder);
  ModelInfo info = vision_language_info(file, architecture, c);
  vocabulary.check_special_tokens(c.tokenizer);
  info.image_tokens = c.placeholders.count;
  info.image = {{vocabulary.tag("<image>")}, {vocabulary.tag("</image>")}, c.placeholders.first, c.placeholders.step};
  return info;
}

VisionLanguageParts kosmos_parts(const KosmosConfig& c) {
  SquareParts p;
  p.image = image_input(c.vision);
  p.vision = vision_tower(c.vision);
  p.vision.unit_length = true;  // unlike CLIP
  const ResamplerShape resampler = {c.vision.tokens(), c.vision.width, c.placeholders.count, c.decoder.width,
                                    c.decoder.heads};
  p.load_projector = [resampler](Backend& backend, Weights& weights) {
    return std::make_unique<Resampler>(backend, weights, resampler);
  };
  return square_parts(p, magneto(c.decoder));
}

}  // namespace ke
