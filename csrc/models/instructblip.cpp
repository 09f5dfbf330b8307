// InstructBLIP with Vicuna: EVA-CLIP's tower -> a Q-Former that reads the question -> a linear product -> LLaMA. The
// only file that knows this model.
#include "models/question_reader.h"
#include "models/shapes.h"

namespace ke {
namespace {

struct InstructBlipConfig : VisionLanguageConfig {
  QformerConfig qformer;
  QuestionConfig question;
  int32_t image_token = 0;  // placeholder of every row of an image
  int32_t begin_token = 0;  // of a prompt, behind its images: the published one is the end of an answer, too
};

struct InstructBlip {
  static constexpr const char* kName = "instructblip";
  using Config = InstructBlipConfig;

  static Schema rows(Config& c) {
    c.vision.kind = TowerKind::Eva;
    const Schema own = {
        token_id(concat(kName, ".image.token_id"), &c.image_token, "a tag, a control token or the unknown one"),
        token_id(concat(kName, ".begin_token_id"), &c.begin_token, "a token that is not unused"),
    };
    return general_rows(kName, c.general) + rotary_decoder_rows(kName, c.decoder) + qformer_rows(kName, c.qformer) +
           question_rows(kName, c.question) + generation_rows(kName, c.generation) + prompt_rows(kName, c.prompts) +
           vision_rows(kName, c.vision) + spm_bpe_rows(kName, c.tokenizer) + own;
  }

  static ModelInfo info(const GgufFile& file, const Config& c) {
    check_prompts(file, kName, /*grounding=*/false);
    ModelInfo info = vision_language_info(file, kName, c);
    check_qformer(file, kName, c.qformer, c.decoder);
    check_question(file, kName, c.question);
    const VocabularyCheck vocabulary(file, kName, c.decoder.vocab);
    vocabulary.check_special_tokens(c.tokenizer);
    vocabulary.check_placeholder(concat(kName, ".image.token_id"), c.image_token);
    vocabulary.check_end(concat(kName, ".begin_token_id"), c.begin_token);
    check_file(file, c.image_token != c.tokenizer.eos, kName, ".image.token_id is ", c.image_token,
               ", the end of an answer, which a placeholder never is; expected another token");
    info.image_tokens = c.qformer.queries;
    info.image = {{}, {}, c.image_token, 0};
    info.image_before_begin = true;
    info.begin = {c.begin_token};
    info.never = vocabulary.unused();
    info.never.push_back(c.image_token);
    info.prompts.chat = true;  // of questions and answers
    return info;
  }

  static VisionLanguageParts parts(const Config& c) {
    return square_parts(reading_bridge_parts(c.qformer, c.question, c.vision, c.decoder), rotary_decoder(c.decoder));
  }
};

}  // namespace

extern const Architecture instructblip;
const Architecture instructblip = VisionLanguageFamily<InstructBlip>::architecture();

}  // namespace ke
