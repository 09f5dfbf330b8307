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

// How prompts are laid out in token ids, and which ids carry structure.
struct PromptFormat {
  int32_t bos = 0, eos = 2;
  int32_t image_begin = 0, image_end = 0;  // around the image tokens
  int32_t first_slot = 0;                  // slot j of a picture has id first_slot + j (seen by the n-gram rule only)
  int32_t phrase_begin = 0, phrase_end = 0, object_begin = 0, object_end = 0, delimiter = 0;
  int32_t first_location = 0;  // id of cell 0
  int64_t location_bins = 0;   // cells per axis
  bool is_location(int32_t id) const {
    return id >= first_location && id < first_location + location_bins * location_bins;
  }
  // Whether these ids of an answer end in a phrase that is not closed yet.
  bool in_phrase(std::span<const int32_t> answer) const {
    for (size_t i = answer.size(); i-- > 0;)
      if (answer[i] == phrase_begin || answer[i] == phrase_end) return answer[i] == phrase_begin;
    return false;
  }
  // Whether an entity's scores are made of the log-probability of this id behind these.
  bool is_scored(int32_t id, std::span<const int32_t> answer) const {
    return is_location(id) || (id != phrase_end && in_phrase(answer));
  }
};

class Model {
 public:
  virtual ~Model() = default;
  int64_t image_tokens = 0;  // rows per picture
  int64_t width = 0;         // of an image token
  int64_t vocab = 0;
  int64_t context = 0;  // positions
  PromptFormat format;

  virtual const ModelInfo& info() const = 0;
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
};

// The model of the file's general.architecture, its weights uploaded to the backend.
std::unique_ptr<Model> load_model(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend);

}  // namespace ke
