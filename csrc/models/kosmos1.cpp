// KOSMOS-1: the parts of its successor without location tokens. The only file that knows this model.
#include "models/architecture.h"
#include "models/vision_language.h"

namespace ke {
namespace {

constexpr const char* kName = "kosmos1";

ModelInfo read(const GgufFile& file, VisionLanguageConfig& c) {
  const Schema schema = vision_language_rows(kName, c);
  read_by_schema(file, schema);
  check_prompts(file, kName, /*grounding=*/false);
  ModelInfo info = vision_language_info(file, kName, c, VocabularyCheck(file, kName, c.decoder.vocab));
  info.facts = facts_of(schema);
  return info;
}

Schema schema() {
  VisionLanguageConfig config;
  return vision_language_rows(kName, config);
}

ModelInfo describe(const GgufFile& file) {
  VisionLanguageConfig config;
  return read(file, config);
}

std::unique_ptr<Model> load(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend) {
  VisionLanguageConfig config;
  ModelInfo info = read(*file, config);
  return std::make_unique<VisionLanguageModel>(std::move(file), std::move(backend), std::move(info), config);
}

}  // namespace

extern const Architecture kosmos1;
const Architecture kosmos1 = {kName, schema, describe, load};

}  // namespace ke
