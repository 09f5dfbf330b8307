// A model of an image encoder and a decoder. What the encoder makes of an image stands in the decoder's
// sequence as rows, or the decoder's cross layers look at it, or both. What differs from one such model to the next is
// its schema, its ModelInfo and its parts.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "layers/text_encoder.h"
#include "models/architecture.h"
#include "models/image_encoder.h"
#include "models/model.h"
#include "models/schema_groups.h"
#include "models/tokenizer_rows.h"
#include "models/workspace_pool.h"

namespace ke {

struct VisionLanguageParts {
  std::function<std::unique_ptr<ImageEncoder>(Backend&, Weights&)> load_encoder;
  DecoderShape decoder;          // with cross layers: the encoder's rows are their memory, too
  bool rows_in_sequence = true;  // else images are memory alone, and the layout has an id after them
  // Of an encoder-decoder model: prompts, images' rows among them, go through it, and what it gives is the memory.
  std::optional<TextEncoderShape> text_encoder{};
};

// The numbers and texts of such a model's file that every one of them has.
struct LanguageConfig {
  GeneralConfig general;
  DecoderConfig decoder;
  TokenizerConfig tokenizer;
  GenerationConfig generation;
  PromptFormats prompts;
};

// Checks each part of it and what must hold between them, and says it. Left to the model: images, how one stands in a
// prompt, grounding, the checks of its vocabulary. Answers are plain text.
ModelInfo language_info(const GgufFile& file, const std::string& architecture, const LanguageConfig& c);

class VisionLanguageModel : public Model {
 public:
  // Uploads all weights; every tensor of the file must be one of the model's. kv_type: see Decoder.
  VisionLanguageModel(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend, ModelInfo info,
                      const VisionLanguageParts& parts, DType kv_type);

  std::unique_ptr<const PreparedImage> prepare(const ImageView& image, const CancelToken* cancel) const override;
  std::unique_ptr<const ImageFeatures> encode(const PreparedImage& image, const CancelToken* cancel) const override;
  std::unique_ptr<const ImageFeatures> read(const ImageFeatures& features, std::string_view words) const override;
  std::unique_ptr<const ImageFeatures> restore(std::vector<float> values) const override;
  std::unique_ptr<const ImageFeatures> given_rows(std::vector<float> values, int64_t count) const override;
  std::unique_ptr<const CrossMemory> read_source(const std::vector<InputRow>& rows,
                                                 const CancelToken* cancel) const override;
  std::unique_ptr<KvCache> new_cache(int64_t capacity) const override;
  DType kv_type() const override { return decoder_.kv_type(); }
  void copy_cache(const KvCache& from, KvCache& to, int64_t begin, int64_t end) const override;
  bool samples_on_device() const override;
  void sample(const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows,
              std::span<const SamplingRule> rules, std::span<Sampled> sampled,
              const CancelToken* cancel) const override;
  void forward(const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows, float* logits,
               const CancelToken* cancel, std::span<const int32_t> vocab_subset) const override;
  void forward_states(const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows, float* logits,
                      float* states, const CancelToken* cancel) const override;

 private:
  class Features;
  int64_t rows_in_sequence() const { return !rows_in_sequence_ ? 0 : reader_ ? reader_->rows() : image_shape_[0]; }
  std::unique_ptr<const ImageFeatures> finish(std::unique_ptr<Features> features) const;

  std::shared_ptr<GgufFile> file_;
  std::shared_ptr<Backend> backend_;
  Weights weights_;
  std::unique_ptr<ImageEncoder> encoder_;
  const WordsReader* reader_;           // the encoder's, or nullptr
  std::array<int64_t, 2> image_shape_;  // what the encoder makes of every image
  bool rows_in_sequence_;
  bool has_memory_;                                  // the decoder looks at the image
  std::unique_ptr<const TextEncoder> text_encoder_;  // or nullptr
  Decoder decoder_;
  mutable WorkspacePool vision_workspaces_, decoder_workspaces_;
};

// A model M that is its numbers and shapes alone:
//   kName                                         its name in general.architecture
//   Config                                        what its schema fills
//   Schema rows(Config&)
//   ModelInfo info(const GgufFile&, const Config&)   checked; without facts, which are added here
//   VisionLanguageParts parts(const Config&)
template <class M>
struct VisionLanguageFamily {
  using Config = typename M::Config;
  static ModelInfo read(const GgufFile& file, Config& c) {
    const Schema schema = M::rows(c);
    read_by_schema(file, schema);
    ModelInfo info = M::info(file, c);
    info.facts = facts_of(schema);
    return info;
  }
  static Schema schema() {
    Config c;
    return M::rows(c);
  }
  static ModelInfo describe(const GgufFile& file) {
    Config c;
    return read(file, c);
  }
  static std::unique_ptr<Model> load(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend, DType kv_type) {
    Config c;
    ModelInfo info = read(*file, c);
    return std::make_unique<VisionLanguageModel>(std::move(file), std::move(backend), std::move(info), M::parts(c),
                                                 kv_type);
  }
  static constexpr Architecture architecture() { return {M::kName, schema, describe, load}; }
};

}  // namespace ke
