// BLIP-2 with OPT: EVA-CLIP's tower -> Q-Former -> a linear product -> OPT. The only file that knows this model.
#include "models/bridge.h"
#include "models/shapes.h"

namespace ke {
namespace {

struct Blip2Config : VisionLanguageConfig {
  QformerConfig qformer;
  int32_t image_token = 0;  // placeholder of every row of an image
  int32_t end_token = 0;    // of an answer: a line feed
};

struct Blip2 {
  static constexpr const char* kName = "blip2";
  using Config = Blip2Config;

  static Schema rows(Config& c) {
    c.vision.kind = TowerKind::Eva;
    const Schema own = {
        token_id(concat(kName, ".image.token_id"), &c.image_token, "a tag, a control token or the unknown one"),
        token_id(concat(kName, ".generation.end_token_id"), &c.end_token, "a token that is not unused"),
    };
    return general_rows(kName, c.general) + decoder_rows(kName, c.decoder) + qformer_rows(kName, c.qformer) +
           generation_rows(kName, c.generation) + prompt_rows(kName, c.prompts) + vision_rows(kName, c.vision) +
           byte_bpe_rows(kName, c.tokenizer) + own;
  }

  static ModelInfo info(const GgufFile& file, const Config& c) {
    check_prompts(file, kName, /*grounding=*/false);
    ModelInfo info = vision_language_info(file, kName, c);
    check_qformer(file, kName, c.qformer, c.decoder);
    const VocabularyCheck vocabulary(file, kName, c.decoder.vocab);
    vocabulary.check_special_tokens(c.tokenizer);
    vocabulary.check_placeholder(concat(kName, ".image.token_id"), c.image_token);
    vocabulary.check_end(concat(kName, ".generation.end_token_id"), c.end_token);
    check_file(file, c.image_token != c.end_token, kName, ".image.token_id is ", c.image_token,
               ", the end of an answer, which a placeholder never is; expected another token");
    info.image_tokens = c.qformer.queries;
    info.image = {{}, {}, c.image_token, 0};
    info.image_before_begin = true;
    if (c.tokenizer.bos >= 0) info.begin = {c.tokenizer.bos};  // the processor's, whatever add_bos_token says
    info.eos = c.end_token;
    info.never = vocabulary.unused();
    info.never.push_back(c.image_token);
    info.prompts.chat = true;  // of questions and answers, a line each
    return info;
  }

  static VisionLanguageParts parts(const Config& c) {
    return square_parts(bridge_parts(c.qformer, c.vision, c.decoder), opt_decoder(c.decoder));
  }
};

}  // namespace

extern const Architecture blip2;
const Architecture blip2 = VisionLanguageFamily<Blip2>::architecture();

}  // namespace ke
