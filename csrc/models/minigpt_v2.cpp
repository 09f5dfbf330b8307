// MiniGPT-v2, and MiniGPT-4 with LLaMA-2: EVA-CLIP's tower, whose neighbouring features become one row, -> a linear
// product -> LLaMA. The only file that knows this model.
#include "format/utf8.h"
#include "models/answer_parser.h"
#include "models/shapes.h"
#include "models/square_encoder.h"

namespace ke {
namespace {

struct MiniGptV2Config : VisionLanguageConfig {
  float post_eps = 0;       // of the tower's last norm
  int64_t merged = 0;       // features that become one row
  int32_t image_token = 0;  // placeholder of every row of an image
  bool text_boxes = false;  // answers may hold boxes as text
};

struct MiniGptV2 {
  static constexpr const char* kName = "minigpt_v2";
  using Config = MiniGptV2Config;

  static Schema rows(Config& c) {
    c.vision.kind = TowerKind::Eva;
    const Schema own = {
        real(concat(kName, ".vision.post_norm_epsilon"), 1e-12, 0.1, &c.post_eps),
        named("merged_features",
              whole(concat(kName, ".projector.merged_features"), 1, 64, &c.merged, "divides the number of patches")),
        token_id(concat(kName, ".image.token_id"), &c.image_token, "a tag, a control token or the unknown one"),
        optional(flag(concat(kName, ".text_boxes"), &c.text_boxes)),
        optional(text(concat(kName, ".prompt.locate"), &c.prompts.locate, "holds {phrase}")),
        optional(text(concat(kName, ".prompt.grounding"), &c.prompts.grounding, "holds {question}")),
        optional(text(concat(kName, ".prompt.grounding_words"), &c.prompts.grounding_words)),
    };
    return general_rows(kName, c.general) + rotary_decoder_rows(kName, c.decoder) +
           generation_rows(kName, c.generation) + prompt_rows(kName, c.prompts) + chat_prompt_rows(kName, c.prompts) +
           vision_rows(kName, c.vision) + spm_bpe_rows(kName, c.tokenizer) + own;
  }

  static ModelInfo info(const GgufFile& file, const Config& c) {
    check_prompts(file, kName, /*grounding=*/false);
    check_places(file, concat(kName, ".prompt.locate"), "{phrase}");
    check_places(file, concat(kName, ".prompt.grounding"), "{question}");
    ModelInfo info = vision_language_info(file, kName, c);
    check_file(file, c.vision.patches() % c.merged == 0, kName, ".projector.merged_features is ", c.merged,
               "; expected a divisor of ", c.vision.patches(), ", the number of patches");
    info.image_tokens = c.vision.patches() / c.merged;
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
    info.text_boxes = c.text_boxes;
    if (c.text_boxes) info.answers = box_text_answers();
    return info;
  }

  static VisionLanguageParts parts(const Config& c) {
    SquareParts p;
    p.image = image_input(c.vision);
    p.vision = vision_tower(c.vision);
    p.vision.post_eps = c.post_eps;
    p.vision.keep_class = false;
    const MlpShape shape = {c.vision.width, c.decoder.width, /*products=*/1, Activation::None, c.merged};
    p.load_projector = [shape](Backend& backend, Weights& weights) { return load_mlp(backend, weights, shape); };
    return square_parts(std::move(p), rotary_decoder(c.decoder));
  }

 private:
  // A format that a file may leave out has its place, and at most one for an image.
  static void check_places(const GgufFile& file, const std::string& key, const std::string& place) {
    if (!file.has(key)) return;
    const std::string format = file.string(key), image = "{image}";
    check_file(file, format.find(place) != std::string::npos && format.find(image) == format.rfind(image), key, " is ",
               quoted(format), "; expected ", place, " in it, and at most one {image}");
  }
};

}  // namespace

extern const Architecture minigpt_v2;
const Architecture minigpt_v2 = VisionLanguageFamily<MiniGptV2>::architecture();

}  // namespace ke
