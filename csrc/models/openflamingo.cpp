// OpenFlamingo with GPT-NeoX: CLIP's patches -> perceiver -> GPT-NeoX, whose every n-th block has a gated
// cross-attention in front that looks at the last image. The only file that knows this model.
#include "models/answer_parser.h"
#include "models/flamingo.h"
#include "models/shapes.h"

namespace ke {
namespace {

struct OpenFlamingoConfig : VisionLanguageConfig {
  PerceiverConfig perceiver;
  int64_t every = 0;                              // before blocks every - 1, 2 every - 1, ...
  int64_t heads = 0, head_dim = 0, ff_width = 0;  // of what looks at images
  int64_t rope_dims = 0;                          // of a head
  int32_t image_token = 0;
  int32_t end_token = 0;  // of an answer and of an example
};

struct OpenFlamingo {
  static constexpr const char* kName = "openflamingo";
  using Config = OpenFlamingoConfig;

  static Schema rows(Config& c) {
    c.rows_in_sequence = false;
    const Schema own = {
        named("decoder.rope_base", real(concat(kName, ".rope.freq_base"), 1, 1e9, &c.decoder.rope_base)),
        named("decoder.rope_dims",
              whole(concat(kName, ".rope.dimension_count"), 2, 256, &c.rope_dims, "even, at most the width of a head")),
        named("cross.every", whole(concat(kName, ".cross_attention.every"), 1, 512, &c.every,
                                   concat("at most ", kName, ".block_count"))),
        named("cross.heads", whole(concat(kName, ".cross_attention.head_count"), 1, 1024, &c.heads)),
        named("cross.head_width",
              whole(concat(kName, ".cross_attention.key_length"), 8, 256, &c.head_dim, "a multiple of 8")),
        named("cross.ff_width", whole(concat(kName, ".cross_attention.feed_forward_length"), 8, 262144, &c.ff_width)),
        token_id(concat(kName, ".image.token_id"), &c.image_token, "a tag, a control token or the unknown one"),
        token_id(concat(kName, ".generation.end_token_id"), &c.end_token, "a token that is not unused"),
    };
    return general_rows(kName, c.general) + decoder_rows(kName, c.decoder) + perceiver_rows(kName, c.perceiver) +
           generation_rows(kName, c.generation) + prompt_rows(kName, c.prompts) + vision_rows(kName, c.vision) +
           byte_bpe_rows(kName, c.tokenizer) + own;
  }

  static ModelInfo info(const GgufFile& file, const Config& c) {
    check_prompts(file, kName, /*grounding=*/false);
    ModelInfo info = vision_language_info(file, kName, c);
    check_perceiver(file, kName, c.perceiver, c.vision);
    check_file(file, c.every <= c.decoder.layers, kName, ".cross_attention.every is ", c.every, "; expected at most ",
               kName, ".block_count, ", c.decoder.layers);
    check_file(file, c.head_dim % 8 == 0, kName, ".cross_attention.key_length is ", c.head_dim,
               "; expected a multiple of 8");
    check_file(file, c.rope_dims % 2 == 0 && c.rope_dims <= c.decoder.key_width(), kName, ".rope.dimension_count is ",
               c.rope_dims, "; expected an even number, at most the width of a head, ", c.decoder.key_width());
    const VocabularyCheck vocabulary(file, kName, c.decoder.vocab);
    vocabulary.check_special_tokens(c.tokenizer);
    vocabulary.check_placeholder(concat(kName, ".image.token_id"), c.image_token);
    vocabulary.check_end(concat(kName, ".generation.end_token_id"), c.end_token);
    check_file(file, c.image_token != c.end_token, kName, ".image.token_id is ", c.image_token,
               ", the end of an answer, which a placeholder never is; expected another token");
    info.image = {{}, {c.image_token}, c.image_token, 0};
    info.begin.clear();  // a text has nothing in front, whatever add_bos_token says
    info.eos = c.end_token;
    info.answers = plain_answers(c.end_token);
    info.never = vocabulary.unused();
    info.never.push_back(c.image_token);
    info.prompts.chat = true;  // of examples, each with its end
    info.prompts.lead = "";
    return info;
  }

  static VisionLanguageParts parts(const Config& c) {
    PerceiverShape perceiver = perceiver_shape(c.perceiver, c.vision);
    perceiver.block.activation = Activation::GeluErf;
    DecoderShape decoder;
    decoder.block = plain_block(c.decoder.width, c.decoder.ff_width, c.decoder.heads, c.decoder.eps);
    decoder.block.activation = Activation::GeluErf;
    decoder.layers = c.decoder.layers, decoder.vocab = c.decoder.vocab, decoder.context = c.decoder.context;
    decoder.position = RopePositions{.base = c.decoder.rope_base, .dims = c.rope_dims};
    decoder.tied_output = false;
    BlockShape looking = plain_block(c.decoder.width, c.ff_width, c.heads, c.perceiver.eps);
    looking.head_dim = c.head_dim, looking.bias = false;
    looking.activation = Activation::GeluErf;
    decoder.cross = {c.every, /*first=*/c.every - 1, c.vision.width, /*head_norms=*/false, looking};
    return flamingo_parts(image_input(c.vision, Fit::Crop), tower_patches(c.vision, -1), perceiver, decoder);
  }
};

}  // namespace

extern const Architecture openflamingo;
const Architecture openflamingo = VisionLanguageFamily<OpenFlamingo>::architecture();

}  // namespace ke
