#include "models/vision_language.h"

#include "backend/logits.h"
#include "models/answer_parser.h"

namespace ke {

// The encoder's rows in the device's memory, and what cross layers made of them; both live as long as this does.
class VisionLanguageModel::Features : public ImageFeatures {
 public:
  // Of the model's shape, still to be filled.
  explicit Features(const VisionLanguageModel& model)
      : Features(model, model.rows_in_sequence(), model.image_shape_, model.reader_ != nullptr) {}
  Features(const VisionLanguageModel& model, int64_t rows_in_sequence, std::array<int64_t, 2> shape,
           bool unread = false)
      : ImageFeatures(model, rows_in_sequence),
        unread_(unread),
        backend_(model.backend_),
        shape_(shape),
        buffer_(backend_->alloc(shape_[0] * shape_[1])) {}

  Mat matrix() const { return Mat(*buffer_, shape_[0], shape_[1]); }
  void remember(std::unique_ptr<const CrossMemory> memory) { memory_ = std::move(memory); }

  bool unread() const override { return unread_; }
  void place(int64_t row, InputRow& input) const override {
    KE_ASSERT(!unread_);
    input.device_embedding = matrix().row_range(row, row + 1).data;
  }
  const CrossMemory* memory() const override { return memory_.get(); }
  std::vector<float> save() const override {
    std::vector<float> values(static_cast<size_t>(shape_[0] * shape_[1]));
    backend_->read(matrix(), values.data());
    return values;
  }
  std::array<int64_t, 2> shape() const override { return shape_; }

 private:
  const bool unread_;
  const std::shared_ptr<Backend> backend_;  // outlives the buffers
  const std::array<int64_t, 2> shape_;
  const std::unique_ptr<Buffer> buffer_;
  std::unique_ptr<const CrossMemory> memory_;
};

ModelInfo language_info(const GgufFile& file, const std::string& architecture, const LanguageConfig& c) {
  check_checksums(file, architecture);
  check_decoder(file, architecture, c.decoder);
  check_generation(file, architecture, c.generation, c.decoder);

  ModelInfo info;
  info.architecture = architecture;
  info.name = c.general.name;
  info.notice = c.general.notice;
  info.trained_tasks = c.general.trained_tasks;
  info.context = c.decoder.context;
  info.vocab = c.decoder.vocab;
  info.width = c.decoder.width;
  info.max_new_tokens = c.generation.max_new_tokens;
  info.no_repeat_ngram_size = c.generation.no_repeat_ngram_size;
  info.repetition_penalty = c.generation.repetition_penalty;
  if (c.tokenizer.bos >= 0 && c.tokenizer.add_bos) info.begin = {c.tokenizer.bos};
  info.eos = c.tokenizer.eos;
  info.answers = plain_answers(c.tokenizer.eos);
  info.prompts = c.prompts;
  return info;
}

VisionLanguageModel::VisionLanguageModel(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend,
                                         ModelInfo info, const VisionLanguageParts& parts, DType kv_type)
    : Model(std::move(info)),
      file_(std::move(file)),
      backend_(std::move(backend)),
      weights_(file_),
      encoder_(parts.load_encoder(*backend_, weights_)),
      reader_(encoder_->reader()),
      image_shape_{encoder_->rows(), reader_                  ? reader_->feature_width()
                                     : parts.rows_in_sequence ? parts.decoder.block.width
                                                              : parts.decoder.cross.memory_width},
      rows_in_sequence_(parts.rows_in_sequence),
      has_memory_(parts.decoder.cross.every > 0 && !parts.text_encoder),
      text_encoder_(parts.text_encoder ? std::make_unique<TextEncoder>(*backend_, weights_, *parts.text_encoder)
                                       : nullptr),
      decoder_(*backend_, weights_, parts.decoder, kv_type),
      vision_workspaces_(*backend_),
      decoder_workspaces_(*backend_) {
  KE_ASSERT((text_encoder_ != nullptr) == this->info().answer_start.has_value());
  KE_ASSERT(!has_memory_ || image_shape_[1] == parts.decoder.cross.memory_width);
  KE_ASSERT(!reader_ || (rows_in_sequence_ && !has_memory_));
  KE_ASSERT(rows_in_sequence_ ? rows_in_sequence() <= this->info().image_tokens
                              : has_memory_ && this->info().image_tokens == 0 && !this->info().image.after.empty());
  weights_.finish();
}

std::unique_ptr<const PreparedImage> VisionLanguageModel::prepare(const ImageView& image,
                                                                  const CancelToken* cancel) const {
  return encoder_->prepare(*this, image, cancel);
}

std::unique_ptr<const ImageFeatures> VisionLanguageModel::encode(const PreparedImage& image,
                                                                 const CancelToken* cancel) const {
  KE_CHECK(image.model == serial(), InvalidRequest, "the picture was prepared by another model");
  auto lease = vision_workspaces_.lease();
  auto made = std::make_unique<Features>(*this);
  backend_->copy(encoder_->encode(*lease, image, cancel), made->matrix());
  return finish(std::move(made));
}

// Makes the memory of filled features; the device's work is done when this returns.
std::unique_ptr<const ImageFeatures> VisionLanguageModel::finish(std::unique_ptr<Features> features) const {
  if (has_memory_) features->remember(decoder_.new_memory(features->matrix()));
  backend_->sync();
  return features;
}

std::unique_ptr<const ImageFeatures> VisionLanguageModel::read(const ImageFeatures& features,
                                                               std::string_view words) const {
  KE_CHECK(features.model == serial(), InvalidRequest, "the picture was encoded by another model");
  KE_CHECK(features.unread(), InvalidRequest, "these rows depend on no words");
  auto lease = vision_workspaces_.lease();
  Workspace& ws = *lease;
  ws.begin();
  const Mat rows = reader_->read(ws, static_cast<const Features&>(features).matrix(), words);
  auto made = std::make_unique<Features>(*this, rows.rows, std::array<int64_t, 2>{rows.rows, rows.cols});
  backend_->copy(rows, made->matrix());
  backend_->sync();
  return made;
}

std::unique_ptr<const ImageFeatures> VisionLanguageModel::restore(std::vector<float> values) const {
  const auto [rows, width] = image_shape_;
  KE_CHECK(values.size() == static_cast<size_t>(rows * width), InvalidRequest, "an encoded picture has ", rows, " x ",
           width, " values, got ", values.size());
  KE_CHECK(all_finite(values), InvalidRequest, "an encoded picture has a value that is not finite");
  auto made = std::make_unique<Features>(*this);
  backend_->write(values.data(), made->matrix());
  return finish(std::move(made));
}

std::unique_ptr<const ImageFeatures> VisionLanguageModel::given_rows(std::vector<float> values, int64_t count) const {
  const int64_t width = info().width;
  KE_CHECK(!has_memory_, InvalidRequest, "rows: this model looks at images by cross-attention, so they have no place");
  KE_CHECK(count >= 1 && count <= info().context && values.size() == static_cast<size_t>(count * width), InvalidRequest,
           "rows: expected 1..", info().context, " rows of ", width, " values each, got ", count, " rows and ",
           values.size(), " values");
  KE_CHECK(all_finite(values), InvalidRequest, "rows: expected finite values, got one that is not");
  auto made = std::make_unique<Features>(*this, count, std::array<int64_t, 2>{count, width});
  backend_->write(values.data(), made->matrix());
  backend_->sync();
  return made;
}

std::unique_ptr<const CrossMemory> VisionLanguageModel::read_source(const std::vector<InputRow>& rows,
                                                                    const CancelToken* cancel) const {
  if (!text_encoder_) return Model::read_source(rows, cancel);
  auto lease = decoder_workspaces_.lease();
  std::unique_ptr<const CrossMemory> memory = decoder_.new_memory(text_encoder_->forward(*lease, rows, cancel));
  backend_->sync();
  return memory;
}

std::unique_ptr<KvCache> VisionLanguageModel::new_cache(int64_t capacity) const { return decoder_.new_cache(capacity); }

void VisionLanguageModel::copy_cache(const KvCache& from, KvCache& to, int64_t begin, int64_t end) const {
  backend_->kv_copy(from, to, begin, end);
}

bool VisionLanguageModel::samples_on_device() const { return backend_->samples_on_device(); }

void VisionLanguageModel::sample(const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows,
                                 std::span<const SamplingRule> rules, std::span<Sampled> sampled,
                                 const CancelToken* cancel) const {
  auto lease = decoder_workspaces_.lease();
  decoder_.sample(*lease, rows, logit_rows, rules, sampled, cancel);
}

void VisionLanguageModel::forward(const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows,
                                  float* logits, const CancelToken* cancel,
                                  std::span<const int32_t> vocab_subset) const {
  auto lease = decoder_workspaces_.lease();
  decoder_.forward(*lease, rows, logit_rows, logits, cancel, vocab_subset);
}

void VisionLanguageModel::forward_states(const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows,
                                         float* logits, float* states, const CancelToken* cancel) const {
  auto lease = decoder_workspaces_.lease();
  decoder_.forward_states(*lease, rows, logit_rows, logits, states, cancel);
}

}  // namespace ke
