#include "models/patch_rows.h"

#include <algorithm>

#include "models/shapes.h"

namespace ke {
namespace {

ImageInput image_of(const PatchRowsConfig& c) {
  return image_input(c.vision, c.aspect == "pad" ? Fit::Pad : c.aspect == "crop" ? Fit::Crop : Fit::Squash);
}

// The layers whose features stand side by side, where the file has a list of them.
void check_layers(const GgufFile& file, const std::string& architecture, const PatchRowsConfig& c) {
  const std::string key = architecture + ".vision.feature_layers";
  if (!file.has(key)) return;
  check_file(file, !c.feature_layers.empty(), key, " is empty; expected at least one layer");
  for (const int32_t layer : c.feature_layers)
    check_file(file, layer >= -c.vision.layers && layer <= -1, key, " has ", layer, "; expected numbers in ",
               -c.vision.layers, "..-1");
  const int32_t deepest = *std::max_element(c.feature_layers.begin(), c.feature_layers.end());
  check_file(file, deepest == c.feature_layer, key, " has ", deepest, " as the deepest layer; expected ", architecture,
             ".vision.feature_layer, ", c.feature_layer);
  const Tensor* product = file.find_tensor("mm.0.weight");
  const int64_t width = c.vision.width * static_cast<int64_t>(c.feature_layers.size());
  check_file(file, product && product->shape.size() == 2 && product->shape[1] == width, key, " has ",
             c.feature_layers.size(), " layers; expected as many as features of ", c.vision.width,
             " values fill a row of mm.0.weight");
}

}  // namespace

Schema patch_rows_schema(const PatchRowsKind& kind, PatchRowsConfig& c) {
  const std::string architecture = kind.name;
  c.vision.kind = kind.tower;
  c.decoder.qkv_bias = kind.qkv_bias;
  Schema own = {
      named("vision.feature_layer", integer(architecture + ".vision.feature_layer", -512, -1, &c.feature_layer,
                                            "at least one block of the tower runs")),
      optional(integers(architecture + ".vision.feature_layers", -512, -1, &c.feature_layers,
                        "the deepest is " + architecture + ".vision.feature_layer")),
      named("vision.aspect", one_text_of(architecture + ".image.aspect", kind.aspects, &c.aspect)),
      token_id(architecture + ".image.token_id", &c.image_token, "a tag, a control token or the unknown one"),
      named("projector", one_text_of(architecture + ".projector", {"linear", "mlp2x_gelu"}, &c.projector)),
      optional(text(architecture + ".generation.stop", &c.stop)),
  };
  if (kind.may_tie) own.push_back(flag(architecture + ".output.tied", &c.decoder.tied_output));
  return general_rows(architecture, c.general) + rotary_decoder_rows(architecture, c.decoder) +
         generation_rows(architecture, c.generation) + prompt_rows(architecture, c.prompts) +
         chat_prompt_rows(architecture, c.prompts) + follow_up_rows(architecture, c.prompts) +
         vision_rows(architecture, c.vision) + kind.vocabulary(architecture, c.tokenizer) + own;
}

ModelInfo patch_rows_info(const PatchRowsKind& kind, const GgufFile& file, const PatchRowsConfig& c) {
  const std::string architecture = kind.name;
  check_prompts(file, architecture, /*grounding=*/false);
  check_follow_up(file, architecture, c.prompts);
  ModelInfo info = vision_language_info(file, architecture, c);
  check_file(file, c.vision.layers + 1 + c.feature_layer >= 1, architecture, ".vision.feature_layer is ",
             c.feature_layer, "; expected at least ", -c.vision.layers, ", for clip.vision.block_count is ",
             c.vision.layers);
  check_layers(file, architecture, c);
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
  if (!c.stop.empty()) info.stop = {c.stop};
  info.prompts.chat = true;
  info.preprocessing = preprocessing_of(image_of(c));
  return info;
}

VisionLanguageParts patch_rows_parts(const PatchRowsConfig& c) {
  SquareParts p;
  p.image = image_of(c);
  p.vision = tower_patches(c.vision, c.feature_layer);
  if (c.feature_layers.size() > 1)
    for (const int32_t layer : c.feature_layers) p.vision.taken.push_back(c.vision.layers + 1 + layer);
  MlpShape projector;
  projector.feature_width = p.vision.feature_width(), projector.width = c.decoder.width;
  projector.products = c.projector == "linear" ? 1 : 2;
  p.load_projector = [projector](Backend& backend, Weights& weights) { return load_mlp(backend, weights, projector); };
  return square_parts(p, rotary_decoder(c.decoder));
}

}  // namespace ke
