// IDEFICS (the first one): CLIP's tower -> perceiver -> LLaMA, whose blocks 0, n, 2n, ... have a gated cross-attention
// in front that looks at the last image. The only file that knows this model.
#include "models/answer_parser.h"
#include "models/flamingo.h"
#include "models/shapes.h"

namespace ke {
namespace {

struct IdeficsConfig : VisionLanguageConfig {
  PerceiverConfig perceiver;
  bool perceiver_head_norms = false;
  int64_t every = 0;  // of the blocks that look at images
  bool head_norms = false;
  int32_t image_token = 0, mark_token = 0;  // <image>, and what stands around it
  int32_t end_token = 0;                    // of an answer
};

struct Idefics {
  static constexpr const char* kName = "idefics";
  using Config = IdeficsConfig;

  static Schema rows(Config& c) {
    c.rows_in_sequence = false;
    c.vision.kind = TowerKind::ClipErf;
    const Schema own = {
        named("cross.every", whole(concat(kName, ".cross_attention.every"), 1, 512, &c.every)),
        flag(concat(kName, ".cross_attention.head_norms"), &c.head_norms),
        flag(concat(kName, ".perceiver.attention.head_norms"), &c.perceiver_head_norms),
        token_id(concat(kName, ".image.token_id"), &c.image_token, "a tag, a control token or the unknown one"),
        token_id(concat(kName, ".image.mark_token_id"), &c.mark_token, "a tag, a control token or the unknown one"),
        token_id(concat(kName, ".generation.end_token_id"), &c.end_token, "a token that is not unused"),
    };
    return general_rows(kName, c.general) + rotary_decoder_rows(kName, c.decoder) + perceiver_rows(kName, c.perceiver) +
           generation_rows(kName, c.generation) + prompt_rows(kName, c.prompts) + chat_prompt_rows(kName, c.prompts) +
           vision_rows(kName, c.vision) + spm_bpe_rows(kName, c.tokenizer) + own;
  }

  static ModelInfo info(const GgufFile& file, const Config& c) {
    check_prompts(file, kName, /*grounding=*/false);
    ModelInfo info = vision_language_info(file, kName, c);
    check_perceiver(file, kName, c.perceiver, c.vision);
    check_head_norms(file, concat(kName, ".perceiver.attention.head_norms"), c.perceiver_head_norms,
                     "mm.blk.0.attn_q_norm.weight");
    check_head_norms(file, concat(kName, ".cross_attention.head_norms"), c.head_norms,
                     "blk.0.cross.attn_q_norm.weight");
    const VocabularyCheck vocabulary(file, kName, c.decoder.vocab);
    vocabulary.check_special_tokens(c.tokenizer);
    vocabulary.check_placeholder(concat(kName, ".image.token_id"), c.image_token);
    vocabulary.check_placeholder(concat(kName, ".image.mark_token_id"), c.mark_token);
    vocabulary.check_end(concat(kName, ".generation.end_token_id"), c.end_token);
    for (const int32_t other : {c.mark_token, c.end_token, c.tokenizer.eos})
      check_file(file, c.image_token != other, kName, ".image.token_id is ", c.image_token,
                 ", which is also the mark around images or an end; expected a token of its own");
    for (const int32_t end : {c.end_token, c.tokenizer.eos})
      check_file(file, c.mark_token != end, kName, ".image.mark_token_id is ", c.mark_token,
                 ", which is also an end; expected a token of its own");
    info.image = {{c.mark_token}, {c.image_token, c.mark_token}, c.image_token, 0};
    info.image.joined = true;
    info.begin_is_text = true;
    info.document_end = c.tokenizer.eos;
    info.eos = c.end_token;
    info.answers = plain_answers(c.end_token);
    info.never = vocabulary.unused();
    info.never.insert(info.never.end(), {c.image_token, c.mark_token});
    info.prompts.chat = true;
    info.prompts.closed = c.end_token != c.tokenizer.eos;  // else a turn ends with its line alone
    info.prompts.between = "\n";
    return info;
  }

  static VisionLanguageParts parts(const Config& c) {
    VitShape vision = vision_tower(c.vision);
    vision.post_norm = false;
    PerceiverShape perceiver = perceiver_shape(c.perceiver, c.vision);
    perceiver.block.activation = Activation::Relu;
    perceiver.head_norms = c.perceiver_head_norms;
    DecoderShape decoder = rotary_decoder(c.decoder);
    decoder.cross = {c.every, /*first=*/0, c.vision.width, c.head_norms, decoder.block};
    return flamingo_parts(image_input(c.vision), vision, perceiver, decoder);
  }
};

}  // namespace

extern const Architecture idefics;
const Architecture idefics = VisionLanguageFamily<Idefics>::architecture();

}  // namespace ke
