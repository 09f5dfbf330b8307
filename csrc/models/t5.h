// T5's encoder and decoder (of version 1.1, as Flan-T5 has them), as the language part of models: schema rows, checks,
// shapes.
#pragma once
#include <string>

#include "layers/decoder.h"
#include "layers/text_encoder.h"
#include "models/info.h"
#include "models/schema_groups.h"
#include "models/tokenizer_rows.h"

namespace ke {

struct T5Config {
  int64_t encoder_layers = 0;
  int64_t buckets = 0, max_distance = 0;  // of RelativePositions; encoder and decoder have the same
  int32_t start = 0;                      // the id that every answer begins behind
};
// <architecture>.*: sizes of the decoder, whose encoder has the same but for its number of blocks.
Schema t5_rows(const std::string& architecture, DecoderConfig& d, T5Config& t);
void check_t5(const GgufFile& file, const std::string& architecture, const DecoderConfig& d, const T5Config& t,
              const VocabularyCheck& vocabulary);
// What a model says of itself for it: where answers begin and prompts end.
void describe_t5(const T5Config& t, ModelInfo& info);

// RMS norms, no biases, scores without a scale, gated GELU by tanh, an output matrix of its own.
DecoderShape t5_decoder(const DecoderConfig& d, const T5Config& t);
TextEncoderShape t5_encoder(const DecoderConfig& d, const T5Config& t);

}  // namespace ke
