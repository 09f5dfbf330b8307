// KOSMOS-2: ViT -> resampler -> decoder, with location tokens. The only file that knows this model.
#include <cstdio>

#include "models/answer_parser.h"
#include "models/kosmos.h"

namespace ke {
namespace {

struct Kosmos2Config : KosmosConfig {
  int64_t location_bins = 0;  // per axis
};

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

struct Kosmos2 {
  static constexpr const char* kName = "kosmos2";
  using Config = Kosmos2Config;

  static Schema rows(Config& c) {
    const Schema own = {
        named("location_bins", whole(concat(kName, ".location_bins"), 2, 100, &c.location_bins,
                                     "its square: the patch indices of the vocabulary")),
    };
    return kosmos_rows(kName, c) + own + grounding_prompt_rows(kName, c.prompts);
  }
  static ModelInfo info(const GgufFile& file, const Config& c) {
    check_prompts(file, kName, /*grounding=*/true);
    const VocabularyCheck vocabulary(file, kName, c.decoder.vocab);
    ModelInfo info = kosmos_info(file, kName, c, vocabulary);
    info.grounding = read_grounding(file, vocabulary, c.location_bins);
    info.answers = grounded_answers(c.location_bins);
    return info;
  }
  static VisionLanguageParts parts(const Config& c) { return kosmos_parts(c); }
};

}  // namespace

extern const Architecture kosmos2;
const Architecture kosmos2 = VisionLanguageFamily<Kosmos2>::architecture();

}  // namespace ke
