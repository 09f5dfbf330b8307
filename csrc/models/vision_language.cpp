#include "models/vision_language.h"

#include <algorithm>

#include "backend/logits.h"
#include "models/answer_parser.h"

namespace ke {
namespace {

// An image of the encoder's size.
struct SquareImage : PreparedImage {
  using PreparedImage::PreparedImage;
  std::vector<uint8_t> rgb;
};

// Rows in the device's memory, which lives as long as they do.
class ImageRows : public ImageFeatures {
 public:
  // values (rows, width) are copied: from the device, and its work is done when this returns.
  ImageRows(const Model& model, std::shared_ptr<Backend> backend, Mat values)
      : ImageRows(model, backend, values.rows, values.cols) {
    backend_->copy(values, matrix());
    backend_->sync();
  }
  ImageRows(const Model& model, std::shared_ptr<Backend> backend, int64_t rows, const std::vector<float>& values)
      : ImageRows(model, backend, rows, static_cast<int64_t>(values.size()) / rows) {
    backend_->write(values.data(), matrix());
    backend_->sync();
  }
  void place(int64_t row, InputRow& input) const override {
    input.device_embedding = matrix().row_range(row, row + 1).data;
  }
  std::vector<float> save() const override {
    std::vector<float> values(static_cast<size_t>(rows * width_));
    backend_->read(matrix(), values.data());
    return values;
  }

 private:
  ImageRows(const Model& model, std::shared_ptr<Backend> backend, int64_t count, int64_t width)
      : ImageFeatures(model, count),
        backend_(std::move(backend)),
        width_(width),
        buffer_(backend_->alloc(count * width)) {}
  Mat matrix() const { return Mat(*buffer_, rows, width_); }

  const std::shared_ptr<Backend> backend_;  // outlives the buffer
  const int64_t width_;
  const std::unique_ptr<Buffer> buffer_;  // (rows, width)
};

}  // namespace

ModelInfo vision_language_info(const GgufFile& file, const std::string& architecture, const VisionLanguageConfig& c) {
  check_checksums(file, architecture);
  check_decoder(file, architecture, c.decoder);
  check_vision(file, c.vision);
  check_file(file, c.vision.projection == c.decoder.width, "clip.vision.projection_dim is ", c.vision.projection,
             "; expected ", architecture, ".embedding_length, ", c.decoder.width);
  check_generation(file, architecture, c.generation, c.decoder);

  ModelInfo info;
  info.architecture = architecture;
  info.name = c.general.name;
  info.notice = c.general.notice;
  info.trained_tasks = c.general.trained_tasks;
  info.preprocessing = preprocessing_of(image_input(c.vision));
  info.context = c.decoder.context;
  info.vocab = c.decoder.vocab;
  info.width = c.decoder.width;
  info.max_new_tokens = c.generation.max_new_tokens;
  info.no_repeat_ngram_size = c.generation.no_repeat_ngram_size;
  if (c.tokenizer.bos >= 0) info.begin = {c.tokenizer.bos};
  info.eos = c.tokenizer.eos;
  info.answers = plain_answers();
  info.prompts = c.prompts;
  return info;
}

ImageInput image_input(const VisionConfig& v, Fit fit) { return {v.image_size, v.patch_size, v.mean, v.std, fit}; }

std::string preprocessing_of(const ImageInput& image) {
  const std::string size = concat(image.image_size, " x ", image.image_size);
  switch (image.fit) {
    case Fit::Pad:
      return concat("padded to a square, then resized to ", size);
    case Fit::Crop:
      return concat("shorter side resized to ", image.image_size, ", then the middle ", size, " cut out");
    case Fit::Squash:
      break;
  }
  return concat("resized to ", size, ", aspect not kept");
}

VisionLanguageModel::VisionLanguageModel(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend,
                                         ModelInfo info, const VisionLanguageParts& parts)
    : Model(std::move(info)),
      file_(std::move(file)),
      backend_(std::move(backend)),
      image_(parts.image),
      weights_(file_),
      vit_(*backend_, weights_, parts.vision),
      projector_(parts.load_projector(*backend_, weights_)),
      image_rows_(projector_->rows(parts.vision.features())),
      decoder_(*backend_, weights_, parts.decoder),
      vision_workspaces_(*backend_),
      decoder_workspaces_(*backend_) {
  KE_ASSERT(image_rows_ <= this->info().image_tokens);
  weights_.finish();
}

std::unique_ptr<const PreparedImage> VisionLanguageModel::prepare(const ImageView& image,
                                                                  const CancelToken* cancel) const {
  auto square = std::make_unique<SquareImage>(*this);
  std::array<uint8_t, 3> colour{};
  for (size_t c = 0; c < colour.size(); c++)
    colour[c] = static_cast<uint8_t>(std::clamp(double{image_.mean[c]} * 255, 0.0, 255.0));
  square->rgb = fit_square(image, image_.image_size, image_.fit, colour, cancel);
  return square;
}

std::unique_ptr<const ImageFeatures> VisionLanguageModel::encode(const PreparedImage& image,
                                                                 const CancelToken* cancel) const {
  KE_CHECK(image.model == serial(), InvalidRequest, "the picture was prepared by another model");
  const std::vector<uint8_t>& rgb = static_cast<const SquareImage&>(image).rgb;
  const std::vector<float> patches = to_patches(rgb, image_.image_size, image_.patch_size, image_.mean, image_.std);
  auto lease = vision_workspaces_.lease();
  const Mat features = vit_.forward(*lease, patches.data(), cancel);
  if (cancel) cancel->check();
  const Mat tokens = projector_->forward(*lease, features);
  return std::make_unique<ImageRows>(*this, backend_, tokens);
}

std::unique_ptr<const ImageFeatures> VisionLanguageModel::restore(std::vector<float> values) const {
  const int64_t rows = image_rows_, width = info().width;
  KE_CHECK(values.size() == static_cast<size_t>(rows * width), InvalidRequest, "an encoded picture has ", rows, " x ",
           width, " values, got ", values.size());
  KE_CHECK(all_finite(values), InvalidRequest, "an encoded picture has a value that is not finite");
  return std::make_unique<ImageRows>(*this, backend_, rows, values);
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

}  // namespace ke
