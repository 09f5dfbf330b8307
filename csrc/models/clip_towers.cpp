// CLIP: a tower for images and one for texts, whose vectors are compared. An image is its class token, a text the token
// that ends it; a product of each makes vectors of one length. The only file that knows this model.
#include <algorithm>
#include <cmath>

#include "backend/logits.h"
#include "models/answer_parser.h"
#include "models/shapes.h"
#include "models/square_encoder.h"

namespace ke {
namespace {

constexpr const char* kName = "clip_towers";
constexpr size_t kRowsAtOnce = 256;  // of texts; bounds the memory of activations

struct Config {
  GeneralConfig general;
  DecoderConfig text;
  TokenizerConfig tokenizer;
  VisionConfig vision;  // projection: of both towers
  float logit_scale = 0;
};

Schema rows(Config& c) {
  const std::string a = kName;
  const Schema own = {named("logit_scale", real(a + ".logit_scale", -10, 10, &c.logit_scale))};
  return general_rows(kName, c.general) + decoder_rows(kName, c.text) + vision_rows(kName, c.vision) +
         clip_bpe_rows(kName, c.tokenizer) + own;
}

Schema schema() {
  Config c;
  return rows(c);
}

ModelInfo read(const GgufFile& file, Config& c) {
  const Schema table = rows(c);
  read_by_schema(file, table);
  check_checksums(file, kName);
  check_decoder(file, kName, c.text);
  check_vision(file, c.vision);
  VocabularyCheck(file, kName, c.text.vocab).check_special_tokens(c.tokenizer);
  check_file(file, c.tokenizer.bos != c.tokenizer.eos, "tokenizer.ggml.bos_token_id is ", c.tokenizer.bos,
             ", as is tokenizer.ggml.eos_token_id; expected two tokens");

  ModelInfo info;
  info.architecture = kName;
  info.name = c.general.name;
  info.notice = c.general.notice;
  info.trained_tasks = c.general.trained_tasks;
  info.context = c.text.context;
  info.vocab = c.text.vocab;
  info.width = c.text.width;
  info.begin = {c.tokenizer.bos};
  info.eos = c.tokenizer.eos;
  info.answers = plain_answers(c.tokenizer.eos);
  info.preprocessing = preprocessing_of(image_input(c.vision, Fit::Crop));
  info.embedding = c.vision.projection;
  info.similarity_scale = std::exp(static_cast<double>(c.logit_scale));
  info.facts = facts_of(table);
  return info;
}

ModelInfo describe(const GgufFile& file) {
  Config c;
  return read(file, c);
}

// A product without bias.
class Projection final : public Projector {
 public:
  Projection(Backend& backend, Weights& weights, int64_t in, int64_t out)
      : backend_(backend), out_(out), product_(load_linear(backend, weights, {{"mm.0", out}}, in, false)) {}
  int64_t rows(int64_t features) const override { return features; }
  Mat forward(Workspace& ws, Mat features) const override {
    const Mat y = ws.take(features.rows, out_);
    backend_.linear(*product_, features, Activation::None, {}, y);
    return y;
  }

 private:
  Backend& backend_;
  const int64_t out_;
  const std::unique_ptr<Linear> product_;
};

SquareParts image_parts(const Config& c) {
  SquareParts p;
  p.image = image_input(c.vision, Fit::Crop);
  p.vision = vision_tower(c.vision);
  p.vision.only_class = true;
  const int64_t in = c.vision.width, out = c.vision.projection;
  p.load_projector = [in, out](Backend& backend, Weights& weights) -> std::unique_ptr<Projector> {
    return std::make_unique<Projection>(backend, weights, in, out);
  };
  return p;
}

// A causal stack whose output product is the projection.
DecoderShape text_shape(const Config& c) {
  DecoderShape s;
  s.block = plain_block(c.text.width, c.text.ff_width, c.text.heads, c.text.eps);
  s.block.activation = Activation::QuickGelu;
  s.layers = c.text.layers, s.vocab = c.text.vocab, s.context = c.text.context;
  s.position = LearnedPositions{};
  s.tied_output = false;
  s.outputs = c.vision.projection;
  return s;
}

// Divides each row by its length. ModelCorrupt where one has none.
void make_unit(std::span<float> values, size_t cols) {
  KE_CHECK(all_finite(values), ModelCorrupt, "the model made a vector with a value that is not finite");
  for (size_t at = 0; at < values.size(); at += cols) {
    const std::span<float> row = values.subspan(at, cols);
    double squares = 0;
    for (const float v : row) squares += double{v} * v;
    KE_CHECK(squares > 0, ModelCorrupt, "the model made a vector of length 0, whose direction is not finite");
    const double length = std::sqrt(squares);
    for (float& v : row) v = static_cast<float>(v / length);
  }
}

class Vector final : public ImageFeatures {
 public:
  Vector(const Model& model, std::vector<float> values) : ImageFeatures(model, 0), values_(std::move(values)) {}
  void place(int64_t, InputRow&) const override { KE_ASSERT(false); }
  std::vector<float> save() const override { return values_; }
  std::array<int64_t, 2> shape() const override { return {1, static_cast<int64_t>(values_.size())}; }

 private:
  const std::vector<float> values_;
};

[[noreturn]] void refuse() { fail(ErrorCode::InvalidRequest, kOnlyCompares); }

class ClipTowers final : public Model {
 public:
  ClipTowers(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend, ModelInfo info, const Config& c,
             DType kv_type)
      : Model(std::move(info)),
        file_(std::move(file)),
        backend_(std::move(backend)),
        weights_(file_),
        images_(square_parts(image_parts(c), {}).load_encoder(*backend_, weights_)),
        texts_(*backend_, weights_, text_shape(c), kv_type),
        workspaces_(*backend_) {
    weights_.finish();
  }

  std::unique_ptr<const PreparedImage> prepare(const ImageView& image, const CancelToken* cancel) const override {
    return images_->prepare(*this, image, cancel);
  }
  std::unique_ptr<const ImageFeatures> encode(const PreparedImage& image, const CancelToken* cancel) const override {
    KE_CHECK(image.model == serial(), InvalidRequest, "the picture was prepared by another model");
    auto lease = workspaces_.lease();
    std::vector<float> values(static_cast<size_t>(info().embedding));
    backend_->read(images_->encode(*lease, image, cancel), values.data());
    make_unit(values, values.size());
    return std::make_unique<Vector>(*this, std::move(values));
  }
  std::unique_ptr<const ImageFeatures> restore(std::vector<float> values) const override {
    KE_CHECK(values.size() == static_cast<size_t>(info().embedding), InvalidRequest, "an encoded picture has 1 x ",
             info().embedding, " values, got ", values.size());
    KE_CHECK(all_finite(values), InvalidRequest, "an encoded picture has a value that is not finite");
    return std::make_unique<Vector>(*this, std::move(values));
  }
  std::vector<float> embed_texts(std::span<const std::vector<int32_t>> texts,
                                 const CancelToken* cancel) const override {
    const size_t width = static_cast<size_t>(info().embedding);
    std::vector<float> out(texts.size() * width);
    auto lease = workspaces_.lease();
    for (size_t begin = 0, end = 0; begin < texts.size(); begin = end) {
      std::vector<std::unique_ptr<KvCache>> caches;
      std::vector<InputRow> rows;
      std::vector<int32_t> last;
      for (; end < texts.size() && (end == begin || rows.size() + texts[end].size() <= kRowsAtOnce); end++) {
        const std::vector<int32_t>& ids = texts[end];
        KE_ASSERT(!ids.empty() && static_cast<int64_t>(ids.size()) <= info().context);
        caches.push_back(texts_.new_cache(static_cast<int64_t>(ids.size())));
        for (size_t i = 0; i < ids.size(); i++) {
          InputRow row;
          row.id = ids[i];
          row.position = {caches.back().get(), static_cast<int32_t>(i)};
          rows.push_back(row);
        }
        last.push_back(static_cast<int32_t>(rows.size()) - 1);
      }
      texts_.forward(*lease, rows, last, out.data() + begin * width, cancel, {});
    }
    make_unit(out, width);
    return out;
  }

  std::unique_ptr<const ImageFeatures> read(const ImageFeatures&, std::string_view) const override { refuse(); }
  std::unique_ptr<const ImageFeatures> given_rows(std::vector<float>, int64_t) const override { refuse(); }
  std::unique_ptr<KvCache> new_cache(int64_t) const override { refuse(); }
  DType kv_type() const override { return texts_.kv_type(); }
  void copy_cache(const KvCache&, KvCache&, int64_t, int64_t) const override { refuse(); }
  bool samples_on_device() const override { return false; }
  void sample(const std::vector<InputRow>&, const std::vector<int32_t>&, std::span<const SamplingRule>,
              std::span<Sampled>, const CancelToken*) const override {
    refuse();
  }
  void forward(const std::vector<InputRow>&, const std::vector<int32_t>&, float*, const CancelToken*,
               std::span<const int32_t>) const override {
    refuse();
  }

  void forward_states(const std::vector<InputRow>&, const std::vector<int32_t>&, float*, float*,
                      const CancelToken*) const override {
    refuse();
  }

 private:
  const std::shared_ptr<GgufFile> file_;
  const std::shared_ptr<Backend> backend_;
  Weights weights_;
  const std::unique_ptr<ImageEncoder> images_;
  const Decoder texts_;
  mutable WorkspacePool workspaces_;
};

std::unique_ptr<Model> load(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend, DType kv_type) {
  Config c;
  ModelInfo info = read(*file, c);
  return std::make_unique<ClipTowers>(std::move(file), std::move(backend), std::move(info), c, kv_type);
}

}  // namespace

extern const Architecture clip_towers;
const Architecture clip_towers = {kName, schema, describe, load};

}  // namespace ke
