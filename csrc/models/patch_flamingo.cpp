#include "models/patch_flamingo.h"

#include <utility>

#include "models/answer_parser.h"
#include "models/shapes.h"

namespace ke {

Schema patch_flamingo_rows(const std::string& architecture, PatchFlamingoConfig& c) {
  const std::string& a = architecture;
  c.rows_in_sequence = false;
  const Schema own = {
      named("cross.every",
            whole(concat(a, ".cross_attention.every"), 1, 512, &c.every, concat("at most ", a, ".block_count"))),
      named("cross.heads", whole(concat(a, ".cross_attention.head_count"), 1, 1024, &c.heads)),
      named("cross.head_width",
            whole(concat(a, ".cross_attention.key_length"), 8, 256, &c.head_dim, "a multiple of 8")),
      named("cross.ff_width", whole(concat(a, ".cross_attention.feed_forward_length"), 8, 262144, &c.ff_width)),
      token_id(concat(a, ".image.token_id"), &c.image_token, "a tag, a control token or the unknown one"),
      token_id(concat(a, ".generation.end_token_id"), &c.end_token, "a token that is not unused"),
  };
  return general_rows(a, c.general) + decoder_rows(a, c.decoder) + perceiver_rows(a, c.perceiver) +
         generation_rows(a, c.generation) + prompt_rows(a, c.prompts) + vision_rows(a, c.vision) +
         byte_bpe_rows(a, c.tokenizer) + own;
}

ModelInfo patch_flamingo_info(const GgufFile& file, const std::string& architecture, const PatchFlamingoConfig& c) {
  const std::string& a = architecture;
  check_prompts(file, a, /*grounding=*/false);
  ModelInfo info = vision_language_info(file, a, c);
  check_perceiver(file, a, c.perceiver, c.vision);
  check_file(file, c.every <= c.decoder.layers, a, ".cross_attention.every is ", c.every, "; expected at most ", a,
             ".block_count, ", c.decoder.layers);
  check_file(file, c.head_dim % 8 == 0, a, ".cross_attention.key_length is ", c.head_dim, "; expected a multiple of 8");
  const VocabularyCheck vocabulary(file, a, c.decoder.vocab);
  vocabulary.check_special_tokens(c.tokenizer);
  vocabulary.check_placeholder(concat(a, ".image.token_id"), c.image_token);
  vocabulary.check_end(concat(a, ".generation.end_token_id"), c.end_token);
  check_file(file, c.image_token != c.end_token, a, ".image.token_id is ", c.image_token,
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

DecoderShape patch_flamingo_decoder(const PatchFlamingoConfig& c) {
  DecoderShape decoder;
  decoder.block = plain_block(c.decoder.width, c.decoder.ff_width, c.decoder.heads, c.decoder.eps);
  decoder.block.activation = Activation::GeluErf;
  decoder.layers = c.decoder.layers, decoder.vocab = c.decoder.vocab, decoder.context = c.decoder.context;
  return decoder;
}

VisionLanguageParts patch_flamingo_parts(const PatchFlamingoConfig& c, DecoderShape decoder) {
  PerceiverShape perceiver = perceiver_shape(c.perceiver, c.vision);
  perceiver.block.activation = Activation::GeluErf;
  BlockShape looking = plain_block(c.decoder.width, c.ff_width, c.heads, c.perceiver.eps);
  looking.head_dim = c.head_dim, looking.bias = false;
  looking.activation = Activation::GeluErf;
  decoder.cross = {c.every, /*first=*/c.every - 1, c.vision.width, /*head_norms=*/false, looking};
  return flamingo_parts(image_input(c.vision, Fit::Crop), tower_patches(c.vision, -1), perceiver, std::move(decoder));
}

}  // namespace ke
