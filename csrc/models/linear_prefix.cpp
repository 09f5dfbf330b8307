// A linear prefix (Frozen): CLIP's class feature behind its last norm -> a linear product that gives several rows ->
// LLaMA, which was not trained with it. The only file that knows this model.
#include "models/shapes.h"
#include "models/square_encoder.h"

namespace ke {
namespace {

struct LinearPrefixConfig : VisionLanguageConfig {
  int64_t rows = 0;         // of an image
  int32_t image_token = 0;  // placeholder of each of them
};

struct LinearPrefix {
  static constexpr const char* kName = "linear_prefix";
  using Config = LinearPrefixConfig;

  static Schema rows(Config& c) {
    const Schema own = {
        named("prefix.rows",
              whole(concat(kName, ".prefix.row_count"), 1, 4096, &c.rows, concat("fits ", kName, ".context_length"))),
        token_id(concat(kName, ".image.token_id"), &c.image_token, "a tag, a control token or the unknown one"),
    };
    return general_rows(kName, c.general) + rotary_decoder_rows(kName, c.decoder) +
           generation_rows(kName, c.generation) + prompt_rows(kName, c.prompts) + vision_rows(kName, c.vision) +
           spm_bpe_rows(kName, c.tokenizer) + own;
  }

  static ModelInfo info(const GgufFile& file, const Config& c) {
    check_prompts(file, kName, /*grounding=*/false);
    ModelInfo info = vision_language_info(file, kName, c);
    info.image_tokens = c.rows;
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
    info.prompts.chat = true;  // of examples and turns, a line each
    info.prompts.closed = false;
    info.prompts.between = "\n";
    info.preprocessing = preprocessing_of(image_input(c.vision, Fit::Crop));
    return info;
  }

  static VisionLanguageParts parts(const Config& c) {
    SquareParts p;
    p.image = image_input(c.vision, Fit::Crop);
    p.vision = vision_tower(c.vision);
    p.vision.only_class = true;
    MlpShape shape = {c.vision.width, c.decoder.width, /*products=*/1, Activation::None};
    shape.split = c.rows;
    p.load_projector = [shape](Backend& backend, Weights& weights) { return load_mlp(backend, weights, shape); };
    return square_parts(std::move(p), rotary_decoder(c.decoder));
  }
};

}  // namespace

extern const Architecture linear_prefix;
const Architecture linear_prefix = VisionLanguageFamily<LinearPrefix>::architecture();

}  // namespace ke
