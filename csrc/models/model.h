// What the engine asks of a model: images to image tokens, rows of positions to logits. Const after construction;
// everything that changes (caches, activations) is passed in or leased per call.
#pragma once
#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "base/cancel.h"
#include "format/gguf.h"
#include "image/image.h"
#include "layers/decoder.h"
#include "models/info.h"

namespace ke {

class Model;

// An image in the form in which its model's encoder takes it. Opaque: only the model that made it looks inside.
class PreparedImage {
 public:
  PreparedImage(const Model& model, const ImageView& image);
  virtual ~PreparedImage() = default;
  const uint64_t model;         // Model::serial of the one that made it
  const int64_t width, height;  // of the image
};

// What a model made of an image: rows that stand in the decoder's sequence, cross memory that rows look at, or both.
// Opaque, too. Must live until the rows that it was given to are computed.
class ImageFeatures {
 public:
  ImageFeatures(const Model& model, int64_t rows);
  virtual ~ImageFeatures() = default;
  const uint64_t model;  // as PreparedImage's
  const int64_t rows;    // in the sequence; may be 0 where there is a memory
  // The rows depend on the words beside the image: they are yet to be made, by Model::read.
  virtual bool unread() const { return false; }
  // Makes `input` the position of this row.
  virtual void place(int64_t row, InputRow& input) const = 0;
  // What the positions from this image to the next one look at; nullptr: nothing.
  virtual const CrossMemory* memory() const { return nullptr; }
  // What Model::restore makes the same features of: (shape()[0], shape()[1]).
  virtual std::vector<float> save() const = 0;
  virtual std::array<int64_t, 2> shape() const = 0;
};

class Model {
 public:
  virtual ~Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelInfo& info() const { return info_; }
  uint64_t serial() const { return serial_; }  // no two models of a process have the same, also one after the other

  // What happens to an image on the host before the encoder. Needs no device and little memory: can be done ahead.
  virtual std::unique_ptr<const PreparedImage> prepare(const ImageView& image, const CancelToken* cancel) const = 0;
  // InvalidRequest where another model prepared the image.
  virtual std::unique_ptr<const ImageFeatures> encode(const PreparedImage& image, const CancelToken* cancel) const = 0;
  // What features that are unread become beside these words, which are well-formed; the same for the same words.
  // InvalidRequest where another model made them or they are not unread; ContextTooLong for too many words.
  virtual std::unique_ptr<const ImageFeatures> read(const ImageFeatures& features, std::string_view words) const = 0;
  // Of ImageFeatures::save, perhaps in another process that loaded the same file. InvalidRequest where these are not as
  // many values as features have, or not finite.
  virtual std::unique_ptr<const ImageFeatures> restore(std::vector<float> values) const = 0;
  // Rows of the caller's own, (count, info().width), that stand in the sequence as an image's would, without ids around
  // them. InvalidRequest where the values are not so many or not finite, and where rows look at images by
  // cross-attention.
  virtual std::unique_ptr<const ImageFeatures> given_rows(std::vector<float> values, int64_t count) const = 0;
  // What the decoder's rows look at, of an encoder-decoder model (ModelInfo::answer_start): rows of a whole prompt, at
  // most info().context of them, in order; of other models InvalidRequest.
  virtual std::unique_ptr<const CrossMemory> read_source(const std::vector<InputRow>& rows,
                                                         const CancelToken* cancel) const;
  virtual std::unique_ptr<KvCache> new_cache(int64_t capacity) const = 0;
  virtual DType kv_type() const = 0;  // what caches hold: F32, F16 or Q8_0
  // Positions [begin, end); see Backend::kv_copy.
  virtual void copy_cache(const KvCache& from, KvCache& to, int64_t begin, int64_t end) const = 0;
  // Whether the device samples tokens itself (Backend::samples_on_device).
  virtual bool samples_on_device() const = 0;
  // See Decoder::forward and Decoder::sample.
  virtual void sample(const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows,
                      std::span<const SamplingRule> rules, std::span<Sampled> sampled,
                      const CancelToken* cancel) const = 0;
  virtual void forward(const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows, float* logits,
                       const CancelToken* cancel, std::span<const int32_t> vocab_subset = {}) const = 0;
  // forward(), and of the same rows, at least one, the last layer's hidden states as the output product takes them,
  // behind the last norm: host (logit_rows.size(), info().width). logits may be nullptr: none are made.
  virtual void forward_states(const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows, float* logits,
                              float* states, const CancelToken* cancel) const = 0;
  // Of a model with ModelInfo::embedding: the vectors of texts, (texts, embedding), each of length 1. A text is its ids
  // with what begins and ends it, at most info().context of them. Other models: InvalidRequest.
  virtual std::vector<float> embed_texts(std::span<const std::vector<int32_t>> texts, const CancelToken* cancel) const;

 protected:
  explicit Model(ModelInfo info);

 private:
  const ModelInfo info_;
  const uint64_t serial_;
};

// The model of the file's general.architecture, its weights uploaded to the backend. kv_type: see Decoder.
std::unique_ptr<Model> load_model(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend, DType kv_type);

}  // namespace ke
