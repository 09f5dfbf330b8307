#include "models/kosmos2.h"

#include <mutex>

#include "layers/resampler.h"
#include "layers/vit.h"
#include "models/kosmos2_config.h"

namespace ke {
namespace {

// Workspaces not in use; a call leases one, so that callers in parallel never share activations.
class WorkspacePool {
 public:
  explicit WorkspacePool(Backend& backend) : backend_(backend) {}
  class Lease {
   public:
    Lease(WorkspacePool& pool, std::unique_ptr<Workspace> ws) : pool_(pool), ws_(std::move(ws)) {}
    ~Lease() {
      std::lock_guard lock(pool_.mutex_);
      pool_.free_.push_back(std::move(ws_));
    }
    Workspace& operator*() { return *ws_; }

   private:
    WorkspacePool& pool_;
    std::unique_ptr<Workspace> ws_;
  };
  Lease lease() {
    std::lock_guard lock(mutex_);
    if (free_.empty()) {
      free_.reserve(++made_);  // so that giving one back never allocates
      return {*this, std::make_unique<Workspace>(backend_)};
    }
    std::unique_ptr<Workspace> ws = std::move(free_.back());
    free_.pop_back();
    return {*this, std::move(ws)};
  }

 private:
  Backend& backend_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> free_;
  size_t made_ = 0;
};

VitShape vit_shape(const Kosmos2Config& c) {
  return {c.vision.patches(), c.vision.patch_values(), c.vision.width, c.vision.ff_width,
          c.vision.layers,    c.vision.heads,          c.vision.eps};
}

ResamplerShape resampler_shape(const Kosmos2Config& c) {
  return {c.vision.tokens(), c.vision.width, c.latents, c.decoder.width, c.decoder.heads};
}

DecoderShape decoder_shape(const Kosmos2Config& c) {
  return {c.decoder.width, c.decoder.ff_width, c.decoder.layers, c.decoder.heads, c.decoder.vocab, c.decoder.eps};
}

class Kosmos2 : public Model {
 public:
  Kosmos2(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend)
      : file_(std::move(file)),
        backend_(std::move(backend)),
        config_(Kosmos2Config::read(*file_)),
        weights_(file_),
        vit_(*backend_, weights_, vit_shape(config_)),
        resampler_(*backend_, weights_, resampler_shape(config_)),
        decoder_(*backend_, weights_, decoder_shape(config_)),
        vision_workspaces_(*backend_),
        decoder_workspaces_(*backend_) {
    weights_.finish();
    const Kosmos2Config& c = config_;
    image_tokens = c.latents;
    width = c.decoder.width;
    vocab = c.decoder.vocab;
    context = c.decoder.context;
    format = {c.bos,        c.eos,          c.image_begin, c.image_end, c.first_slot,        c.phrase_begin,
              c.phrase_end, c.object_begin, c.object_end,  c.delimiter, c.first_patch_index, c.location_bins};
  }

  std::vector<float> encode_image(const ImageView& image, const CancelToken* cancel) const override {
    const VisionConfig& v = config_.vision;
    const std::vector<uint8_t> square =
        resize_bicubic(image, v.image_size, v.image_size, cancel);  // squashed, aspect not kept
    const std::vector<float> patches = to_patches(square, v.image_size, v.patch_size, v.mean, v.std);
    auto lease = vision_workspaces_.lease();
    const Mat features = vit_.forward(*lease, patches.data(), cancel);
    if (cancel) cancel->check();
    const Mat tokens = resampler_.forward(*lease, /*first_slot=*/6, features);
    std::vector<float> host(tokens.rows * tokens.cols);
    backend_->read(tokens, host.data());
    return host;
  }

  std::unique_ptr<KvCache> new_cache(int64_t capacity) const override {
    const DecoderConfig& d = config_.decoder;
    return backend_->alloc_kv(static_cast<int>(d.layers), d.heads, d.width / d.heads, capacity, decoder_.kv_type());
  }

  void copy_cache(const KvCache& from, KvCache& to, int64_t begin, int64_t end) const override {
    backend_->kv_copy(from, to, begin, end);
  }

  bool chooses() const override { return backend_->chooses(); }

  void choose(const std::vector<InputRow>& rows, const std::vector<int32_t>& wanted, std::span<const ChoiceRule> rules,
              std::span<Choice> choices, const CancelToken* cancel) const override {
    auto lease = decoder_workspaces_.lease();
    decoder_.choose(*lease, rows, wanted, rules, choices, cancel);
  }

  void forward(const std::vector<InputRow>& rows, const std::vector<int32_t>& wanted, float* logits,
               const CancelToken* cancel, std::span<const int32_t> outputs) const override {
    auto lease = decoder_workspaces_.lease();
    decoder_.forward(*lease, rows, wanted, logits, cancel, outputs);
  }

 private:
  std::shared_ptr<GgufFile> file_;
  std::shared_ptr<Backend> backend_;
  Kosmos2Config config_;
  Weights weights_;
  Vit vit_;
  Resampler resampler_;
  Decoder decoder_;
  mutable WorkspacePool vision_workspaces_, decoder_workspaces_;
};

}  // namespace

std::unique_ptr<Model> load_kosmos2(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend) {
  return std::make_unique<Kosmos2>(std::move(file), std::move(backend));
}

}  // namespace ke
