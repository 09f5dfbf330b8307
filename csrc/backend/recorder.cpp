#include "backend/recorder.h"

#include <algorithm>

#include "base/error.h"

namespace ke {

namespace {

// Of `inner`, with the names of its parts.
class RecordedLinear final : public Linear {
 public:
  RecordedLinear(std::unique_ptr<Linear> linear, std::vector<std::string> names)
      : inner(std::move(linear)), names(std::move(names)) {
    in = inner->in;
    out = inner->out;
  }
  const std::unique_ptr<Linear> inner;
  const std::vector<std::string> names;
};

class RecordingBackend final : public Backend {
 public:
  RecordingBackend(std::shared_ptr<Backend> inner, std::shared_ptr<ActivationRecorder> recorder)
      : inner_(std::move(inner)), recorder_(std::move(recorder)) {}

  std::string name() const override { return inner_->name(); }
  std::string description() const override { return inner_->description(); }
  std::string isa() const override { return inner_->isa(); }
  int threads() const override { return inner_->threads(); }

  std::unique_ptr<Buffer> alloc(int64_t floats) override { return inner_->alloc(floats); }
  void write(const float* host, Mat dst) override { inner_->write(host, dst); }
  void read(Mat src, float* host) override { inner_->read(src, host); }
  std::unique_ptr<Linear> upload(const std::vector<Tensor>& parts, const float* bias, MatmulUse use) override {
    std::vector<std::string> names;
    for (const Tensor& part : parts)
      if (!part.name.empty()) names.push_back(part.name);
    return std::make_unique<RecordedLinear>(inner_->upload(parts, bias, use), std::move(names));
  }
  std::unique_ptr<KvCache> alloc_kv(int layers, int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                    DType type) override {
    return inner_->alloc_kv(layers, kv_heads, head_dim, capacity, type);
  }
  void reserve(KvCache& cache, int64_t capacity) override { inner_->reserve(cache, capacity); }
  void kv_copy(const KvCache& src, KvCache& dst, int64_t begin, int64_t end) override {
    inner_->kv_copy(src, dst, begin, end);
  }

  bool observes() const override { return true; }
  void observe(const std::string& tensor, Mat x) override { record({tensor}, x); }

  // norm_linear and norm_linear_rows are the defaults, which come here.
  void linear(const Linear& w, Mat x, Activation act, Mat residual, Mat y) override {
    const auto& recorded = static_cast<const RecordedLinear&>(w);
    if (!recorded.names.empty()) record(recorded.names, x);
    inner_->linear(*recorded.inner, x, act, residual, y);
  }
  void norm(Mat x, const Norm& norm, Mat y) override { inner_->norm(x, norm, y); }
  void l2_normalize(Mat x, float eps) override { inner_->l2_normalize(x, eps); }
  void add(Mat x, Mat y) override { inner_->add(x, y); }
  void add_scaled(Mat x, float factor, Mat y) override { inner_->add_scaled(x, factor, y); }
  void scale(Mat x, float factor, Mat y) override { inner_->scale(x, factor, y); }
  void gate(Mat gate, Activation act, Mat up, Mat y) override { inner_->gate(gate, act, up, y); }
  void copy(Mat x, Mat y) override { inner_->copy(x, y); }
  void rope(Mat x, int64_t heads, const Rope& rope, const std::vector<KvPosition>& positions) override {
    inner_->rope(x, heads, rope, positions);
  }
  void attention(Mat q, Mat k, Mat v, int64_t heads, float scale, Mat out, ScoreType score_type,
                 const RelativeBias& bias) override {
    inner_->attention(q, k, v, heads, scale, out, score_type, bias);
  }
  void kv_write(Mat k, Mat v, int layer, const std::vector<KvPosition>& positions) override {
    inner_->kv_write(k, v, layer, positions);
  }
  void kv_attention(Mat q, int layer, int64_t heads, float scale, const std::vector<KvPosition>& positions, Mat out,
                    const RelativeBias& bias) override {
    inner_->kv_attention(q, layer, heads, scale, positions, out, bias);
  }
  void embed_rows(const Tensor& table, std::span<const int32_t> ids, float factor, Mat y) override {
    inner_->embed_rows(table, ids, factor, y);
  }
  bool samples_on_device() const override { return inner_->samples_on_device(); }
  void sample(Mat logits, std::span<const SamplingRule> rules, std::span<Sampled> sampled) override {
    inner_->sample(logits, rules, sampled);
  }
  void sync() override { inner_->sync(); }

 private:
  void record(const std::vector<std::string>& names, Mat x) {
    std::vector<float> host(static_cast<size_t>(x.rows * x.cols));
    inner_->read(x, host.data());
    recorder_->add(names, host.data(), x.rows, x.cols);
  }

  const std::shared_ptr<Backend> inner_;
  const std::shared_ptr<ActivationRecorder> recorder_;
};

}  // namespace

void ActivationRecorder::use_threads(int threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (pool_->threads() != threads) pool_ = std::make_unique<ThreadPool>(threads);
}

void ActivationRecorder::add(const std::vector<std::string>& names, const float* x, int64_t rows, int64_t cols) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::shared_ptr<Sums>& sums = sums_[names.at(0)];
  if (!sums) {
    sums = std::make_shared<Sums>();
    sums->cols = cols;
    sums->sum.resize(static_cast<size_t>(cols));
    sums->squares.resize(static_cast<size_t>(cols));
    if (std::any_of(names.begin(), names.end(), [&](const std::string& n) { return products_of_.contains(n); }))
      sums->moments = std::make_unique<SecondMoments>(cols);
    for (const std::string& name : names) sums_[name] = sums;
  }
  KE_CHECK(sums->cols == cols, InvalidRequest, names[0], " has inputs of ", sums->cols, " and of ", cols, " values");
  sums->rows += rows;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < cols; ++i) {
      const double v = x[r * cols + i];
      sums->sum[i] += v;
      sums->squares[i] += v * v;
    }
  if (sums->moments) sums->moments->add(x, rows, *pool_);
}

std::vector<std::string> ActivationRecorder::names() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::string> out;
  for (const auto& [name, sums] : sums_) out.push_back(name);
  return out;
}

std::shared_ptr<const ActivationRecorder::Sums> ActivationRecorder::find(const std::string& name) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = sums_.find(name);
  KE_CHECK(found != sums_.end(), InvalidRequest, "nothing was recorded for the tensor ", name);
  Sums& sums = *found->second;
  if (sums.moments) sums.products = sums.moments->sums(*pool_);
  return found->second;
}

std::shared_ptr<Backend> record_activations(std::shared_ptr<Backend> inner,
                                            std::shared_ptr<ActivationRecorder> recorder) {
  recorder->use_threads(inner->threads());
  return std::make_shared<RecordingBackend>(std::move(inner), std::move(recorder));
}

}  // namespace ke
