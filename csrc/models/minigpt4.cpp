// MiniGPT-4 with Vicuna: EVA-CLIP's tower -> Q-Former -> a linear product -> LLaMA. The only file that knows this
// model.
#include "models/bridge.h"
#include "models/shapes.h"

namespace ke {
namespace {

struct MiniGpt4Config : VisionLanguageConfig {
  QformerConfig qformer;
  float post_eps = 0;       // of the tower's last norm
  int32_t image_token = 0;  // placeholder of every row of an image
  std::string stop;         // ends an answer, too; empty: none does
};

struct MiniGpt4 {
  static constexpr const char* kName = "minigpt4";
  using Config = MiniGpt4Config;

  static Schema rows(Config& c) {
    c.vision.kind = TowerKind::Eva;
    const Schema own = {
        real(concat(kName, ".vision.post_norm_epsilon"), 1e-12, 0.1, &c.post_eps),
        token_id(concat(kName, ".image.token_id"), &c.image_token, "a tag, a control token or the unknown one"),
        text(concat(kName, ".generation.stop"), &c.stop),
    };
    return general_rows(kName, c.general) + rotary_decoder_rows(kName, c.decoder) + qformer_rows(kName, c.qformer) +
           generation_rows(kName, c.generation) + prompt_rows(kName, c.prompts) + chat_prompt_rows(kName, c.prompts) +
           vision_rows(kName, c.vision) + spm_bpe_rows(kName, c.tokenizer) + own;
  }

  static ModelInfo info(const GgufFile& file, const Config& c) {
    check_prompts(file, kName, /*grounding=*/false);
    ModelInfo info = vision_language_info(file, kName, c);
    check_qformer(file, kName, c.qformer, c.decoder);
    const VocabularyCheck vocabulary(file, kName, c.decoder.vocab);
    vocabulary.check_special_tokens(c.tokenizer);
    vocabulary.check_placeholder(concat(kName, ".image.token_id"), c.image_token);
    check_file(file, c.image_token != c.tokenizer.eos, kName, ".image.token_id is ", c.image_token,
               ", the end of an answer, which a placeholder never is; expected another token");
    info.image_tokens = c.qformer.queries;
    info.image = {{}, {}, c.image_token, 0};
    info.never = vocabulary.unused();
    info.never.push_back(c.image_token);
    if (!c.stop.empty()) info.stop = {c.stop};
    info.prompts.chat = true;
    return info;
  }

  static VisionLanguageParts parts(const Config& c) {
    SquareParts p = bridge_parts(c.qformer, c.vision, c.decoder);
    p.vision.post_eps = c.post_eps;
    return square_parts(std::move(p), rotary_decoder(c.decoder));
  }
};

}  // namespace

extern const Architecture minigpt4;
const Architecture minigpt4 = VisionLanguageFamily<MiniGpt4>::architecture();

}  // namespace ke
