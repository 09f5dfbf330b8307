#include "models/patch_rows.h"

#include "models/shapes.h"

namespace ke {
namespace {

ImageInput image_of(const PatchRowsConfig& c) {
  return image_input(c.vision, c.aspect == "pad" ? Fit::Pad : c.aspect == "crop" ? Fit::Crop : Fit::Squash);
}

}  // namespace

Schema patch_rows_schema(const PatchRowsKind& kind, PatchRowsConfig& c) {
  const std::string architecture = kind.name;
  c.vision.kind = kind.tower;
  c.decoder.qkv_bias = kind.qkv_bias;
  Schema own = {
      named("vision.feature_layer", integer(architecture + ".vision.feature_layer", -512, -1, &c.feature_layer,
                                            "at least one block of the tower runs")),
      named("vision.aspect", one_text_of(architecture + ".image.aspect", kind.aspects, &c.aspect)),
      token_id(architecture + ".image.token_id", &c.image_token, "a tag, a control token or the unknown one"),
      named("projector", one_text_of(architecture + ".projector", {"linear", "mlp2x_gelu"}, &c.projector)),
  };
  if (kind.may_tie) own.push_back(flag(architecture + ".output.tied", &c.decoder.tied_output));
  return general_rows(architecture, c.general) + rotary_decoder_rows(architecture, c.decoder) +
         generation_rows(architecture, c.generation) + prompt_rows(architecture, c.prompts) +
         chat_prompt_rows(architecture, c.prompts) + vision_rows(architecture, c.vision) +
         kind.vocabulary(architecture, c.tokenizer) + own;
}

ModelInfo patch_rows_info(const PatchRowsKind& kind, const GgufFile& file, const PatchRowsConfig& c) {
  const std::string architecture = kind.name;
  check_prompts(file, architecture, /*grounding=*/false);
  ModelInfo info = vision_language_info(file, architecture, c);
  check_file(file, c.vision.layers + 1 + c.feature_layer >= 1, architecture, ".vision.feature_layer is ",
             c.feature_layer, "; expected at least ", -c.vision.layers, ", for clip.vision.block_count is ",
             c.vision.layers);
  if (kind.may_tie) {
    const bool has_output = file.find_tensor("output.weight") != nullptr;
    check_file(file, c.decoder.tied_output != has_output, architecture, ".output.tied is ",
               c.decoder.tied_output ? "true" : "false", "; expected ",
               has_output ? "false, for there is a" : "true, for there is no", " tensor output.weight");
  }
  info.image_tokens = c.vision.patches();
  check_file(file, info.image_tokens + 4 <= c.decoder.context, architecture, ".context_length is ", c.decoder.context,
             "; expected room for a picture's ", info.image_tokens, " tokens and 4 more");
  const VocabularyCheck vocabulary(file, architecture, c.decoder.vocab);
  vocabulary.check_special_tokens(c.tokenizer);
  vocabulary.check_placeholder(architecture + ".image.token_id", c.image_token);
  check_file(file, c.image_token != c.tokenizer.eos, architecture, ".image.token_id is ", c.image_token,
             ", the end of an answer, which a placeholder never is; expected another token");
  info.image = {{}, {}, c.image_token, 0};
  info.never = vocabulary.unused();
  info.never.push_back(c.image_token);
  info.prompts.chat = true;
  info.preprocessing = preprocessing_of(image_of(c));
  return info;
}

VisionLanguageParts patch_rows_parts(const PatchRowsConfig& c) {
  SquareParts p;
  p.image = image_of(c);
  p.vision = tower_patches(c.vision, c.feature_layer);
  MlpShape projector;
  projector.feature_width = c.vision.width, projector.width = c.decoder.width;
  projector.products = c.projector == "linear" ? 1 : 2;
  p.load_projector = [projector](Backend& backend, Weights& weights) { return load_mlp(backend, weights, projector); };
  return square_parts(p, rotary_decoder(c.decoder));
}

}  // namespace ke
