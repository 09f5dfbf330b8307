// Memory and row operations of the CPU backend. linear.cpp and attention.cpp hold the two big ones.
#include "cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>

#include "backend/devices.h"
#include "base/error.h"
#include "cpu/kv_cache.h"
#include "cpu/select.h"
#include "cpu/tasks.h"
#include "quant/codec.h"

namespace ke {

std::shared_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
  KE_CHECK(options.threads >= 0, InvalidRequest, "threads must be 0 (choose) or more, got ", options.threads);
  const cpu::Kernels& kernels = cpu::select_kernels(options.isa);
  std::vector<cpu::OneRowKernel> one_row = cpu::one_row_kernels(kernels);
  if (cpu::isa_is_forced(options.isa)) one_row.resize(1);
  return std::make_shared<cpu::CpuBackend>(kernels, cpu::kv_code_kernels_of(kernels), std::move(one_row),
                                           options.threads ? options.threads : default_thread_count());
}

namespace cpu {

namespace {

constexpr int64_t kRowGrain = 16384;  // values per task of a row operation: below that, handing over costs more

// Of each arena when a sequence begins: an encoder's packed activations would take memory beside keys and values.
constexpr size_t kKeptScratch = size_t{8} << 20;

class CpuBuffer final : public Buffer {
 public:
  explicit CpuBuffer(int64_t floats) : memory_(static_cast<size_t>(floats) * sizeof(float)) {
    data = memory_.floats();
    count = floats;
  }

 private:
  Memory memory_;
};

int64_t row_grain(int64_t cols) { return std::max<int64_t>(1, kRowGrain / std::max<int64_t>(cols, 1)); }

}  // namespace

std::string CpuBackend::description() const {
  return concat("cpu (", kernels_.name, ", ", pool_.threads(), pool_.threads() == 1 ? " thread)" : " threads)");
}

std::unique_ptr<Buffer> CpuBackend::alloc(int64_t floats) {
  KE_CHECK(floats >= 0 && floats <= int64_t{1} << 48, OutOfMemory, "not enough memory for ", floats, " floats");
  return std::make_unique<CpuBuffer>(floats);
}

void CpuBackend::write(const float* host, Mat dst) {
  for (int64_t r = 0; r < dst.rows; ++r)
    std::memcpy(dst.data + r * dst.stride, host + r * dst.cols, dst.cols * sizeof(float));
}

void CpuBackend::read(Mat src, float* host) {
  for (int64_t r = 0; r < src.rows; ++r)
    std::memcpy(host + r * src.cols, src.data + r * src.stride, src.cols * sizeof(float));
}

std::unique_ptr<Linear> CpuBackend::upload(const std::vector<Tensor>& parts, const float* bias, MatmulUse use) {
  SharedPanels* const shared = use == MatmulUse::Once ? nullptr : sharing_.get();
  std::unique_ptr<CpuLinear> linear =
      upload_linear(pool_, kernels_.panels, parts, bias, use, kernels_.prefers_i8, shared);
  linear->one_row = one_row_.shape_of(*linear);
  return linear;
}

void CpuBackend::begin_sharing(const SharingRequest& request) {
  sharing_ = std::make_unique<SharedPanels>(pool_, kernels_.name, kernels_.panels, kernels_.prefers_i8, request);
}

Sharing CpuBackend::end_sharing(std::optional<SharingStep>* again) {
  KE_ASSERT(sharing_);
  Sharing sharing = sharing_->finish(again);
  sharing_.reset();
  return sharing;
}

std::unique_ptr<KvCache> CpuBackend::alloc_kv(int layers, int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                              DType type) {
  arenas_.trim(kKeptScratch);
  return std::make_unique<CpuKvCache>(layers, kv_heads, head_dim, capacity, type);
}

void CpuBackend::reserve(KvCache& cache, int64_t capacity) { static_cast<CpuKvCache&>(cache).reserve(capacity); }

void CpuBackend::kv_copy(const KvCache& src, KvCache& dst, int64_t begin, int64_t end) {
  const auto& from = static_cast<const CpuKvCache&>(src);
  auto& to = static_cast<CpuKvCache&>(dst);
  KE_ASSERT(to.same_shape(from) && begin >= 0 && begin <= end && end <= from.capacity);
  to.reserve(end);
  run_tasks(pool_, from.layers, 1,
            [&](int, int64_t layer) { to.copy_layer(from, static_cast<int>(layer), begin, end); });
}

void CpuBackend::norm(Mat x, const Norm& norm, Mat y) {
  KE_ASSERT(x.rows == y.rows && x.cols == y.cols && fits(norm, x.cols));
  const RowNorm row = row_norm(norm);
  run_tasks(pool_, x.rows, row_grain(x.cols),
            [&](int, int64_t r) { kernels_.norm(x.data + r * x.stride, &row, x.cols, y.data + r * y.stride); });
}

void CpuBackend::l2_normalize(Mat x, float eps) {
  run_tasks(pool_, x.rows, row_grain(x.cols),
            [&](int, int64_t r) { kernels_.l2_normalize(x.data + r * x.stride, eps, x.cols); });
}

void CpuBackend::add(Mat x, Mat y) {
  KE_ASSERT(x.rows == y.rows && x.cols == y.cols);
  run_tasks(pool_, x.rows, row_grain(x.cols),
            [&](int, int64_t r) { kernels_.add(x.data + r * x.stride, y.data + r * y.stride, x.cols); });
}

void CpuBackend::add_scaled(Mat x, float factor, Mat y) {
  KE_ASSERT(x.rows == y.rows && x.cols == y.cols);
  run_tasks(pool_, x.rows, row_grain(x.cols),
            [&](int, int64_t r) { kernels_.add_scaled(x.data + r * x.stride, factor, y.data + r * y.stride, x.cols); });
}

void CpuBackend::scale(Mat x, float factor, Mat y) {
  KE_ASSERT(x.rows == y.rows && x.cols == y.cols);
  run_tasks(pool_, x.rows, row_grain(x.cols),
            [&](int, int64_t r) { kernels_.scale(x.data + r * x.stride, factor, y.data + r * y.stride, x.cols); });
}

void CpuBackend::gate(Mat gate, Activation act, Mat up, Mat y) {
  KE_ASSERT(gate.rows == y.rows && gate.cols == y.cols && up.rows == y.rows && up.cols == y.cols);
  run_tasks(pool_, y.rows, row_grain(y.cols), [&](int, int64_t r) {
    kernels_.gate(gate.data + r * gate.stride, act_of(act), up.data + r * up.stride, y.data + r * y.stride, y.cols);
  });
}

void CpuBackend::rope(Mat x, int64_t heads, const Rope& rope, const std::vector<KvPosition>& positions) {
  const int64_t d = x.cols / heads;
  KE_ASSERT(x.cols % heads == 0 && rope.dims % 2 == 0 && rope.dims <= d);
  KE_ASSERT(static_cast<int64_t>(positions.size()) >= x.rows);
  for (int64_t r = 0; r < x.rows; ++r)
    KE_ASSERT(positions[r].pos >= 0 && (positions[r].pos + 1) * rope.dims <= rope.table->count);
  run_tasks(pool_, x.rows, row_grain(x.cols), [&](int, int64_t r) {
    for (int64_t h = 0; h < heads; ++h)
      kernels_.rope(x.data + r * x.stride + h * d, rope.table->data + positions[r].pos * rope.dims, rope.dims,
                    rope.interleaved);
  });
}

void CpuBackend::embed_rows(const Tensor& table, std::span<const int32_t> ids, float factor, Mat y) {
  KE_ASSERT(table.cols() == y.cols && static_cast<int64_t>(ids.size()) == y.rows);
  for (int32_t id : ids) KE_ASSERT(id < table.rows());
  const size_t row_bytes = table.bytes / static_cast<size_t>(table.rows());
  run_tasks(pool_, y.rows, row_grain(y.cols), [&](int, int64_t r) {
    if (ids[r] < 0) return;
    float* row = y.data + r * y.stride;
    decode(table.dtype, table.data + row_bytes * static_cast<size_t>(ids[r]), row, y.cols);
    kernels_.scale(row, factor, row, y.cols);
  });
}

void CpuBackend::copy(Mat x, Mat y) {
  KE_ASSERT(x.rows == y.rows && x.cols == y.cols);
  for (int64_t r = 0; r < x.rows; ++r)
    std::memcpy(y.data + r * y.stride, x.data + r * x.stride, x.cols * sizeof(float));
}

}  // namespace cpu
}  // namespace ke
