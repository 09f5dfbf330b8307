// mPLUG-Owl (the first): all features of CLIP behind its last norm -> visual abstractor -> LLaMA. The only file that
// knows this model.
#include "layers/abstractor.h"
#include "models/shapes.h"
#include "models/square_encoder.h"

namespace ke {
namespace {

struct AbstractorConfig {
  int64_t ff_width = 0, layers = 0, heads = 0, queries = 0;
  float eps = 0, ff_eps = 0;  // of the norms, and of that inside of the feed-forward
};

struct MplugOwlConfig : VisionLanguageConfig {
  AbstractorConfig abstractor;
  int32_t image_token = 0;  // placeholder of every row of an image
};

struct MplugOwl {
  static constexpr const char* kName = "mplug_owl";
  using Config = MplugOwlConfig;

  static Schema rows(Config& c) {
    const std::string a = kName;
    AbstractorConfig& q = c.abstractor;
    const Schema own = {
        named("abstractor.ff_width", whole(a + ".abstractor.feed_forward_length", 8, 262144, &q.ff_width)),
        named("abstractor.layers", whole(a + ".abstractor.block_count", 1, 512, &q.layers)),
        named("abstractor.heads",
              whole(a + ".abstractor.attention.head_count", 1, 1024, &q.heads, "divides clip.vision.embedding_length")),
        named("abstractor.queries",
              whole(a + ".abstractor.query_count", 1, 4096, &q.queries, concat("fits ", kName, ".context_length"))),
        named("abstractor.eps", real(a + ".abstractor.attention.layer_norm_epsilon", 1e-12, 0.1, &q.eps)),
        named("abstractor.ff_eps", real(a + ".abstractor.feed_forward_norm_epsilon", 1e-12, 0.1, &q.ff_eps)),
        token_id(concat(kName, ".image.token_id"), &c.image_token, "a tag, a control token or the unknown one"),
    };
    return general_rows(kName, c.general) + rotary_decoder_rows(kName, c.decoder) +
           generation_rows(kName, c.generation) + prompt_rows(kName, c.prompts) + chat_prompt_rows(kName, c.prompts) +
           follow_up_rows(kName, c.prompts) + vision_rows(kName, c.vision) + spm_bpe_rows(kName, c.tokenizer) + own;
  }

  static ModelInfo info(const GgufFile& file, const Config& c) {
    check_prompts(file, kName, /*grounding=*/false);
    check_follow_up(file, kName, c.prompts);
    ModelInfo info = vision_language_info(file, kName, c);
    const int64_t heads = c.abstractor.heads, head = c.vision.width / heads;
    check_file(file, c.vision.width % heads == 0 && head % 8 == 0 && head <= 256, "clip.vision.embedding_length is ",
               c.vision.width, " and ", kName, ".abstractor.attention.head_count ", heads,
               "; expected heads of 8, 16, 24, ... or 256 values");
    info.image_tokens = c.abstractor.queries + 1;
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
    return info;
  }

  static VisionLanguageParts parts(const Config& c) {
    SquareParts p;
    p.image = image_input(c.vision);
    p.vision = vision_tower(c.vision);
    const AbstractorConfig& q = c.abstractor;
    AbstractorShape shape;
    shape.block = plain_block(c.vision.width, q.ff_width, q.heads, q.eps);
    shape.block.activation = Activation::Silu;
    shape.block.gated = shape.block.ffn_sub_norm = true;
    shape.block.ffn_sub_norm_eps = q.ff_eps;
    shape.layers = q.layers, shape.queries = q.queries, shape.width = c.decoder.width;
    p.load_projector = [shape](Backend& backend, Weights& weights) {
      return std::make_unique<Abstractor>(backend, weights, shape);
    };
    return square_parts(p, rotary_decoder(c.decoder));
  }
};

}  // namespace

extern const Architecture mplug_owl;
const Architecture mplug_owl = VisionLanguageFamily<MplugOwl>::architecture();

}  // namespace ke
