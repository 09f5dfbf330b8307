#include "models/t5.h"

#include "models/shapes.h"

namespace ke {

Schema t5_rows(const std::string& architecture, DecoderConfig& d, T5Config& t) {
  const std::string& a = architecture;
  const Schema own = {
      named("decoder.eps", real(a + ".attention.layer_norm_rms_epsilon", 1e-12, 0.1, &d.eps)),
      named("decoder.head_dim", whole(a + ".attention.key_length", 8, 256, &d.head_dim, "a multiple of 8")),
      named("encoder.layers", whole(a + ".encoder.block_count", 1, 512, &t.encoder_layers)),
      named("decoder.buckets", whole(a + ".attention.relative_buckets_count", 4, 4096, &t.buckets, "a multiple of 4")),
      named("decoder.max_distance", whole(a + ".attention.relative_max_distance", 2, 1 << 20, &t.max_distance,
                                          "more than half of the buckets")),
      token_id(a + ".decoder_start_token_id", &t.start, "a token that is not unused"),
      optional(fixed_flag("tokenizer.ggml.add_eos_token", true)),
  };
  return decoder_size_rows(architecture, d) + own;
}

void check_t5(const GgufFile& file, const std::string& architecture, const DecoderConfig& d, const T5Config& t,
              const VocabularyCheck& vocabulary) {
  check_file(file, t.buckets % 4 == 0, architecture, ".attention.relative_buckets_count is ", t.buckets,
             "; expected a multiple of 4");
  check_file(file, t.max_distance > t.buckets / 2, architecture, ".attention.relative_max_distance is ", t.max_distance,
             "; expected more than half of ", architecture, ".attention.relative_buckets_count, ", t.buckets);
  check_file(file, d.context * d.heads <= int64_t{1} << 24, architecture, ".context_length times ", architecture,
             ".attention.head_count is ", d.context * d.heads, "; at most ", int64_t{1} << 24, " are supported");
  vocabulary.check_end(architecture + ".decoder_start_token_id", t.start);
}

void describe_t5(const T5Config& t, ModelInfo& info) {
  info.answer_start = t.start;
  info.end = {info.eos};
}

namespace {

BlockShape t5_block(const DecoderConfig& d) {
  BlockShape b = plain_block(d.width, d.ff_width, d.heads, d.eps);
  b.head_dim = d.key_width();
  b.norm = {NormKind::Rms, d.eps, /*bias=*/false};
  b.bias = false, b.gated = true, b.unscaled = true;
  b.activation = Activation::GeluTanh;
  return b;
}

}  // namespace

DecoderShape t5_decoder(const DecoderConfig& d, const T5Config& t) {
  DecoderShape s;
  s.block = t5_block(d);
  s.layers = d.layers, s.vocab = d.vocab, s.context = d.context;
  s.position = RelativePositions{.buckets = t.buckets, .max_distance = t.max_distance, .heads = d.heads};
  s.cross.every = 1, s.cross.memory_width = d.width, s.cross.within = true;
  s.cross.block = s.block;
  s.tied_output = false;
  return s;
}

TextEncoderShape t5_encoder(const DecoderConfig& d, const T5Config& t) {
  TextEncoderShape s;
  s.block = t5_block(d);
  s.layers = t.encoder_layers, s.vocab = d.vocab, s.context = d.context;
  s.position = {.buckets = t.buckets, .max_distance = t.max_distance, .heads = d.heads, .both_ways = true};
  return s;
}

}  // namespace ke
