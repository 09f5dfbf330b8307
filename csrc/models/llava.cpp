// LLaVA (v1, v1.5, TinyLLaVA): patches of CLIP's last but one layer -> linear or MLP projector -> LLaMA. The only file
// that knows this model.
#include "models/shapes.h"
#include "models/square_encoder.h"

namespace ke {
namespace {

struct LlavaConfig : VisionLanguageConfig {
  int64_t feature_layer = 0;      // -1: behind the tower's last block
  int32_t image_token = 0;        // placeholder of every row of an image
  std::string aspect, projector;  // "pad" or "crop", "linear" or "mlp2x_gelu"
};

struct Llava {
  static constexpr const char* kName = "llava";
  using Config = LlavaConfig;

  static Schema rows(Config& c) {
    const Schema own = {
        named("vision.feature_layer", integer(concat(kName, ".vision.feature_layer"), -512, -1, &c.feature_layer,
                                              "at least one block of the tower runs")),
        named("vision.aspect", one_text_of(concat(kName, ".image.aspect"), {"pad", "crop"}, &c.aspect)),
        token_id(concat(kName, ".image.token_id"), &c.image_token, "a tag, a control token or the unknown one"),
        named("projector", one_text_of(concat(kName, ".projector"), {"linear", "mlp2x_gelu"}, &c.projector)),
    };
    return general_rows(kName, c.general) + rotary_decoder_rows(kName, c.decoder) +
           generation_rows(kName, c.generation) + prompt_rows(kName, c.prompts) + chat_prompt_rows(kName, c.prompts) +
           vision_rows(kName, c.vision) + spm_bpe_rows(kName, c.tokenizer) + own;
  }

  static ModelInfo info(const GgufFile& file, const Config& c) {
    check_prompts(file, kName, /*grounding=*/false);
    ModelInfo info = vision_language_info(file, kName, c);
    check_file(file, c.vision.layers + 1 + c.feature_layer >= 1, kName, ".vision.feature_layer is ", c.feature_layer,
               "; expected at least ", -c.vision.layers, ", for clip.vision.block_count is ", c.vision.layers);
    info.image_tokens = c.vision.patches();
    check_file(file, info.image_tokens + 4 <= c.decoder.context, kName, ".context_length is ", c.decoder.context,
               "; expected room for a picture's ", info.image_tokens, " tokens and 4 more");
    const VocabularyCheck vocabulary(file, kName, c.decoder.vocab);
    vocabulary.check_special_tokens(c.tokenizer);
    vocabulary.check_placeholder(concat(kName, ".image.token_id"), c.image_token);
    check_file(file, c.image_token != c.tokenizer.eos, kName, ".image.token_id is ", c.image_token,
               ", the end of an answer, which a placeholder never is; expected another token");
    info.image = {{}, {}, c.image_token, 0};
    info.never = vocabulary.unused();
    info.never.push_back(c.image_token);
    info.prompts.chat = true;
    info.preprocessing = preprocessing_of(image_of(c));
    return info;
  }

  static VisionLanguageParts parts(const Config& c) {
    SquareParts p;
    p.image = image_of(c);
    p.vision = clip_patches(c.vision, c.feature_layer);
    MlpShape projector;
    projector.feature_width = c.vision.width, projector.width = c.decoder.width;
    projector.products = c.projector == "linear" ? 1 : 2;
    p.load_projector = [projector](Backend& backend, Weights& weights) {
      return load_mlp(backend, weights, projector);
    };
    return square_parts(p, rotary_decoder(c.decoder));
  }

 private:
  static ImageInput image_of(const Config& c) {
    return image_input(c.vision, c.aspect == "pad" ? Fit::Pad : Fit::Crop);
  }
};

}  // namespace

extern const Architecture llava;
const Architecture llava = VisionLanguageFamily<Llava>::architecture();

}  // namespace ke
