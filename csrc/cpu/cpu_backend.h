// The Backend on this machine's processor: splits the operations over threads and calls the kernels of one ISA.
#pragma once
#include <vector>

#include "backend/backend.h"
#include "backend/shapes.h"
#include "base/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/kv_codes.h"
#include "cpu/one_row.h"
#include "cpu/scratch.h"
#include "cpu/upload.h"

namespace ke::cpu {

inline Act act_of(Activation a) { return static_cast<Act>(a); }
static_assert(static_cast<int>(Act::Silu) == static_cast<int>(Activation::Silu));

inline RowNorm row_norm(const Norm& n) {
  return {n.gamma->data, n.beta ? n.beta->data : nullptr, n.eps, n.kind == NormKind::Rms};
}

class CpuBackend final : public Backend {
 public:
  // one_row: what may multiply one row with weights that `kernels` packed, `kernels` first.
  CpuBackend(const Kernels& kernels, const KvCodeKernels& kv_codes, std::vector<OneRowKernel> one_row, int threads)
      : kernels_(kernels), kv_codes_(kv_codes), one_row_(std::move(one_row)), pool_(threads) {}

  std::string name() const override { return "cpu"; }
  std::string description() const override;
  std::string isa() const override { return kernels_.name; }
  int threads() const override { return pool_.threads(); }
  std::vector<KernelChoice> kernel_choices() const override { return one_row_.report(); }

  std::unique_ptr<Buffer> alloc(int64_t floats) override;
  void write(const float* host, Mat dst) override;
  void read(Mat src, float* host) override;
  std::unique_ptr<Linear> upload(const std::vector<Tensor>& parts, const float* bias, MatmulUse use) override;
  void begin_sharing(const SharingRequest& request) override;
  Sharing end_sharing(std::optional<SharingStep>* again) override;
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
  void embed_rows(const Tensor& table, std::span<const int32_t> ids, float factor, Mat y) override;
  void attention(Mat q, Mat k, Mat v, int64_t heads, float scale, Mat out, ScoreType score_type,
                 const RelativeBias& bias) override;
  void kv_write(Mat k, Mat v, int layer, const std::vector<KvPosition>& positions) override;
  void kv_attention(Mat q, int layer, int64_t heads, float scale, const std::vector<KvPosition>& positions, Mat out,
                    const RelativeBias& bias) override;

 private:
  struct HeadTasks;
  // The two ways of attention over matrices, see kernels.h.
  void attend_by_codes(const HeadTasks& tasks, Mat q, Mat k, Mat v, float scale, Mat out);
  void attend_at_once(const HeadTasks& tasks, Mat q, Mat k, Mat v, float scale, bool codes, const RelativeBias& bias,
                      Mat out);
  void attend_by_tiles(const HeadTasks& tasks, Mat q, Mat k, Mat v, float scale, bool codes, const RelativeBias& bias,
                       Mat out);
  // norm == nullptr: plain linear; else rows of x are normalised into scratch first.
  void run_linear(const CpuLinear& w, Mat x, const Norm* norm, Mat scratch, Activation act, Mat residual, Mat y);
  // padded: of every worker packed.cols floats, or nullptr where x has as many.
  void pack(Mat x, const Norm* norm, Mat scratch, const Packed& packed, bool floats, bool quantized, float* padded);

  const Kernels& kernels_;
  const KvCodeKernels& kv_codes_;
  OneRowChoice one_row_;
  ThreadPool pool_;
  ArenaPool arenas_;
  std::unique_ptr<SharedPanels> sharing_;  // between begin_sharing and end_sharing
};

}  // namespace ke::cpu
