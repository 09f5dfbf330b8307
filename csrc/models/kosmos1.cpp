// KOSMOS-1: the parts of its successor without location tokens. The only file that knows this model.
#include "models/kosmos.h"

namespace ke {
namespace {

struct Kosmos1 {
  static constexpr const char* kName = "kosmos1";
  using Config = KosmosConfig;

  static Schema rows(Config& c) { return kosmos_rows(kName, c); }
  static ModelInfo info(const GgufFile& file, const Config& c) {
    check_prompts(file, kName, /*grounding=*/false);
    return kosmos_info(file, kName, c, VocabularyCheck(file, kName, c.decoder.vocab));
  }
  static VisionLanguageParts parts(const Config& c) { return kosmos_parts(c); }
};

}  // namespace

extern const Architecture kosmos1;
const Architecture kosmos1 = VisionLanguageFamily<Kosmos1>::architecture();

}  // namespace ke
