// KOSMOS-2: ViT -> resampler -> decoder, with location tokens. The only file that knows this model.
#include <cstdio>

#include "models/answer_parser.h"
#include "models/architecture.h"
#include "models/vision_language.h"

namespace ke {
namespace {

constexpr const char* kName = "kosmos2";

struct Config {
  GeneralConfig general;
  VisionConfig vision;
  DecoderConfig decoder;
  TokenizerConfig tokenizer;
  GenerationConfig generation;
  ImageSlots slots;
  PromptFormats prompts;
  int64_t location_bins = 0;  // per axis
};

Schema schema_of(Config& c) {
  const Schema own = {
      named("location_bins", whole(concat(kName, ".location_bins"), 2, 100, &c.location_bins,
                                   "its square: the patch indices of the vocabulary")),
  };
  return general_rows(kName, c.general) + decoder_rows(kName, c.decoder) + slot_rows(kName, c.slots) + own +
         generation_rows(kName, c.generation) + prompt_rows(kName, c.prompts) +
         grounding_prompt_rows(kName, c.prompts) + vision_rows(kName, c.vision) + unigram_rows(kName, c.tokenizer);
}

Grounding read_grounding(const GgufFile& file, const VocabularyCheck& vocabulary, int64_t bins) {
  Grounding g;
  g.phrase_begin = vocabulary.tag("<phrase>");
  g.phrase_end = vocabulary.tag("</phrase>");
  g.object_begin = vocabulary.tag("<object>");
  g.object_end = vocabulary.tag("</object>");
  g.delimiter = vocabulary.tag("</delimiter_of_multi_objects/>");
  (void)vocabulary.tag("<grounding>");  // of the prompts
  g.bins = bins;
  for (int i = 0; i < bins * bins; ++i) {
    char name[32];
    std::snprintf(name, sizeof name, "<patch_index_%04d>", i);
    const int32_t id = vocabulary.tag(name);
    if (i == 0) g.first_location = id;
    check_file(file, id == g.first_location + i, name, " is token ", id, "; expected ", g.first_location + i,
               ", for patch indices follow each other");
  }
  return g;
}

// Reads and checks a file; what the table says of each key on its own, and the checks between them.
ModelInfo read(const GgufFile& file, Config& c) {
  const Schema schema = schema_of(c);
  read_by_schema(file, schema);
  check_prompts(file, kName, /*grounding=*/true);
  check_checksums(file, kName);
  check_decoder(file, kName, c.decoder);
  check_vision(file, c.vision);
  check_file(file, c.vision.projection == c.decoder.width, "clip.vision.projection_dim is ", c.vision.projection,
             "; expected ", kName, ".embedding_length, ", c.decoder.width);
  check_slots(file, kName, c.slots, c.decoder);
  check_generation(file, kName, c.generation, c.decoder);
  const VocabularyCheck vocabulary(file, kName, c.decoder.vocab);
  vocabulary.check_special_tokens(c.tokenizer);

  ModelInfo info;
  info.architecture = kName;
  info.name = c.general.name;
  info.notice = c.general.notice;
  info.preprocessing = concat("resized to ", c.vision.image_size, " x ", c.vision.image_size, ", aspect not kept");
  info.context = c.decoder.context;
  info.vocab = c.decoder.vocab;
  info.width = c.decoder.width;
  info.image_tokens = c.slots.count;
  info.max_new_tokens = c.generation.max_new_tokens;
  info.no_repeat_ngram_size = c.generation.no_repeat_ngram_size;
  info.begin = {c.tokenizer.bos};
  info.eos = c.tokenizer.eos;
  info.image = {{vocabulary.tag("<image>")}, {vocabulary.tag("</image>")}, c.slots.first, 1};
  info.grounding = read_grounding(file, vocabulary, c.location_bins);
  info.answers = grounded_answers(c.location_bins);
  info.prompts = c.prompts;
  info.facts = facts_of(schema);
  return info;
}

Schema schema() {
  Config config;
  return schema_of(config);
}

ModelInfo describe(const GgufFile& file) {
  Config config;
  return read(file, config);
}

std::unique_ptr<Model> load(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend) {
  Config c;
  ModelInfo info = read(*file, c);
  return std::make_unique<VisionLanguageModel>(std::move(file), std::move(backend), std::move(info),
                                               VisionLanguageConfig{c.vision, c.decoder, c.slots.count});
}

}  // namespace

extern const Architecture kosmos2;
const Architecture kosmos2 = {kName, schema, describe, load};

}  // namespace ke
