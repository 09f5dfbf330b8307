// A model of an image encoder, a resampler and a decoder, whose image tokens stand in the decoder's sequence. What
// differs from one such model to the next is its schema and ModelInfo.
#pragma once
#include <memory>

#include "layers/resampler.h"
#include "layers/vit.h"
#include "models/model.h"
#include "models/schema_groups.h"
#include "models/workspace_pool.h"

namespace ke {

// The numbers and texts of such a model's file.
struct VisionLanguageConfig {
  GeneralConfig general;
  VisionConfig vision;
  DecoderConfig decoder;
  TokenizerConfig tokenizer;
  GenerationConfig generation;
  ImageSlots slots;  // image tokens
  PromptFormats prompts;
};

// The schema of an architecture without location tokens; one that has them adds its own rows.
Schema vision_language_rows(const std::string& architecture, VisionLanguageConfig& c);
// Checks what was read by that schema, of each part and between them, and says it; still without grounding and facts.
// Images stand between <image> and </image>, and answers are plain text.
ModelInfo vision_language_info(const GgufFile& file, const std::string& architecture, const VisionLanguageConfig& c,
                               const VocabularyCheck& vocabulary);

class VisionLanguageModel : public Model {
 public:
  // Uploads all weights; every tensor of the file must be one of the model's.
  VisionLanguageModel(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend, ModelInfo info,
                      const VisionLanguageConfig& config);

  std::unique_ptr<const PreparedImage> prepare(const ImageView& image, const CancelToken* cancel) const override;
  std::unique_ptr<const ImageFeatures> encode(const PreparedImage& image, const CancelToken* cancel) const override;
  std::unique_ptr<const ImageFeatures> restore(std::vector<float> values) const override;
  std::unique_ptr<KvCache> new_cache(int64_t capacity) const override;
  void copy_cache(const KvCache& from, KvCache& to, int64_t begin, int64_t end) const override;
  bool chooses() const override;
  void choose(const std::vector<InputRow>& rows, const std::vector<int32_t>& wanted, std::span<const ChoiceRule> rules,
              std::span<Choice> choices, const CancelToken* cancel) const override;
  void forward(const std::vector<InputRow>& rows, const std::vector<int32_t>& wanted, float* logits,
               const CancelToken* cancel, std::span<const int32_t> outputs) const override;

 private:
  std::shared_ptr<GgufFile> file_;
  std::shared_ptr<Backend> backend_;
  VisionLanguageConfig config_;
  Weights weights_;
  Vit vit_;
  Resampler resampler_;
  Decoder decoder_;
  mutable WorkspacePool vision_workspaces_, decoder_workspaces_;
};

}  // namespace ke
