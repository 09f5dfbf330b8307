// BLIP-2 with Flan-T5: EVA-CLIP's tower -> Q-Former -> a linear product -> T5's encoder, whose rows T5's decoder looks
// at. The only file that knows this model.
#include "models/bridge.h"
#include "models/t5.h"

namespace ke {
namespace {

struct Blip2T5Config : VisionLanguageConfig {
  QformerConfig qformer;
  T5Config t5;
  int32_t image_token = 0;  // placeholder of every row of an image
};

struct Blip2T5 {
  static constexpr const char* kName = "blip2_t5";
  using Config = Blip2T5Config;

  static Schema rows(Config& c) {
    c.vision.kind = TowerKind::Eva;
    const Schema own = {
        token_id(concat(kName, ".image.token_id"), &c.image_token, "a tag, a control token or the unknown one"),
    };
    return general_rows(kName, c.general) + t5_rows(kName, c.decoder, c.t5) + qformer_rows(kName, c.qformer) +
           generation_rows(kName, c.generation) + prompt_rows(kName, c.prompts) + vision_rows(kName, c.vision) +
           unigram_rows(kName, c.tokenizer, /*begins=*/false) + own;
  }

  static ModelInfo info(const GgufFile& file, const Config& c) {
    check_prompts(file, kName, /*grounding=*/false);
    ModelInfo info = vision_language_info(file, kName, c);
    check_qformer(file, kName, c.qformer, c.decoder);
    const VocabularyCheck vocabulary(file, kName, c.decoder.vocab);
    vocabulary.check_special_tokens(c.tokenizer);
    check_t5(file, kName, c.decoder, c.t5, vocabulary);
    vocabulary.check_placeholder(concat(kName, ".image.token_id"), c.image_token);
    check_file(file, c.image_token != c.tokenizer.eos, kName, ".image.token_id is ", c.image_token,
               ", the end of an answer, which a placeholder never is; expected another token");
    describe_t5(c.t5, info);
    info.image_tokens = c.qformer.queries;
    info.image = {{}, {}, c.image_token, 0};
    info.never = vocabulary.unused();
    info.never.push_back(c.image_token);
    info.prompts.chat = true;     // of questions and answers,
    info.prompts.closed = false;  // which only the end of the prompt ends
    return info;
  }

  static VisionLanguageParts parts(const Config& c) {
    VisionLanguageParts p = square_parts(bridge_parts(c.qformer, c.vision, c.decoder), t5_decoder(c.decoder, c.t5));
    p.text_encoder = t5_encoder(c.decoder, c.t5);
    return p;
  }
};

}  // namespace

extern const Architecture blip2_t5;
const Architecture blip2_t5 = VisionLanguageFamily<Blip2T5>::architecture();

}  // namespace ke
