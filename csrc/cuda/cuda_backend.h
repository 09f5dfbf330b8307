// The Backend on a CUDA device: one stream, on which every operation is put in the order of the calls, at the latest
// when something waits for it (launch_queue.h).
#pragma once
#include <mutex>

#include "backend/backend.h"
#include "cuda/kernels.h"
#include "cuda/launch_queue.h"
#include "cuda/memory.h"
#include "cuda/upload.h"

namespace ke::cuda {

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "create a stream"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class CudaBackend;

// The backend for as long as it lives: what lies in its memory may live longer (keys and values kept with an image).
class BackendHandle {
 public:
  explicit BackendHandle(CudaBackend* backend) : backend_(backend) {}
  // Before memory is freed that deferred launches may use. Not while the backend's lock is held.
  void flush_noexcept() noexcept;
  void detach() noexcept;

 private:
  std::mutex mutex_;
  CudaBackend* backend_;
};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(int device);
  ~CudaBackend() override { handle_->detach(); }

  std::string name() const override { return name_; }
  std::string description() const override { return description_; }

  std::unique_ptr<Buffer> alloc(int64_t floats) override;
  void write(const float* host, Mat dst) override;
  void read(Mat src, float* host) override;
  std::unique_ptr<Linear> upload(const std::vector<Tensor>& parts, const float* bias, MatmulUse use) override;
  std::unique_ptr<KvCache> alloc_kv(int layers, int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                    DType type) override;
  void reserve(KvCache& cache, int64_t capacity) override;
  void kv_copy(const KvCache& src, KvCache& dst, int64_t begin, int64_t end) override;

  void linear(const Linear& w, Mat x, Activation act, Mat residual, Mat y) override;
  void norm_linear(Mat x, const Norm& norm, const Linear& w, Activation act, Mat residual, Mat scratch, Mat y) override;
  void norm_linear_rows(Mat x, const Norm& norm, const Linear& w, std::span<const int32_t> outputs, Mat scratch,
                        Mat y) override;
  void norm(Mat x, const Norm& norm, Mat y) override;
  void l2_normalize(Mat x, float eps) override;
  void add(Mat x, Mat y) override;
  void add_scaled(Mat x, float factor, Mat y) override;
  void scale(Mat x, float factor, Mat y) override;
  void gate(Mat gate, Activation act, Mat up, Mat y) override;
  void copy(Mat x, Mat y) override;
  void rope(Mat x, int64_t heads, const Rope& rope, const std::vector<KvPosition>& positions) override;
  void attention(Mat q, Mat k, Mat v, int64_t heads, float scale, Mat out, ScoreType score_type,
                 const RelativeBias& bias) override;
  void kv_write(Mat k, Mat v, int layer, const std::vector<KvPosition>& positions) override;
  void kv_attention(Mat q, int layer, int64_t heads, float scale, const std::vector<KvPosition>& positions, Mat out,
                    const RelativeBias& bias) override;
  bool samples_on_device() const override { return true; }
  void sample(Mat logits, std::span<const SamplingRule> rules, std::span<Sampled> sampled) override;
  void sync() override;

  // Starts the deferred launches. A failure is reported by the next call.
  void flush_noexcept() noexcept;

 private:
  // Callers in parallel share the stream and the scratch memory: an operation's launches stay together under the lock.
  using Lock = std::lock_guard<std::recursive_mutex>;
  Lock enter();
  void probe(const cudaDeviceProp& properties);
  void run_linear(const CudaLinear& w, Mat x, const Norm* norm, Mat scratch, Activation act, Mat residual, Mat y);
  Codes scratch_codes(int64_t rows, int64_t blocks);
  // The positions on the device; a pass asks for the same ones layer by layer.
  const DevicePosition* device_positions(const std::vector<KvPosition>& positions, int64_t rows);
  void grow(DeviceMemory& memory, size_t bytes);
  void flush();
  void add_norm(const Matrix& x, const NormWeights& norm, const Matrix& y);

  const std::shared_ptr<BackendHandle> handle_ = std::make_shared<BackendHandle>(this);
  const int device_;
  std::string name_, description_;
  std::recursive_mutex mutex_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<LaunchQueue> queue_;
  bool positions_in_queue_ = false;  // a launch in the queue reads positions_
  DeviceMemory codes_, positions_, columns_, all_outputs_;
  DeviceMemory rules_, sampled_, sorted_;           // of sample()
  std::vector<DevicePosition> uploaded_positions_;  // what positions_ holds
};

}  // namespace ke::cuda
