// What the engine asks of a model: pictures to image tokens, rows of positions to logits. Const after construction;
// everything that changes (caches, activations) is passed in or leased per call.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/cancel.h"
#include "format/gguf.h"
#include "image/image.h"
#include "layers/decoder.h"
#include "models/info.h"

namespace ke {

class Model {
 public:
  virtual ~Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelInfo& info() const { return info_; }

  // -> (image_tokens, width) float32
  virtual std::vector<float> encode_image(const ImageView& image, const CancelToken* cancel) const = 0;
  virtual std::unique_ptr<KvCache> new_cache(int64_t capacity) const = 0;
  // Positions [begin, end); see Backend::kv_copy.
  virtual void copy_cache(const KvCache& from, KvCache& to, int64_t begin, int64_t end) const = 0;
  // Whether the device chooses tokens itself (Backend::chooses).
  virtual bool chooses() const = 0;
  // See Decoder::forward and Decoder::choose.
  virtual void choose(const std::vector<InputRow>& rows, const std::vector<int32_t>& wanted,
                      std::span<const ChoiceRule> rules, std::span<Choice> choices,
                      const CancelToken* cancel) const = 0;
  virtual void forward(const std::vector<InputRow>& rows, const std::vector<int32_t>& wanted, float* logits,
                       const CancelToken* cancel, std::span<const int32_t> outputs = {}) const = 0;

 protected:
  explicit Model(ModelInfo info) : info_(std::move(info)) {}

 private:
  const ModelInfo info_;
};

// The model of the file's general.architecture, its weights uploaded to the backend.
std::unique_ptr<Model> load_model(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend);

}  // namespace ke
