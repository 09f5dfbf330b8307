#include "cpu/upload.h"

#include <algorithm>
#include <cstring>

#include "backend/shapes.h"
#include "base/error.h"
#include "cpu/panels.h"

namespace ke::cpu {

// See upload.h.
static int64_t packed_cols(const std::vector<Tensor>& parts, MatmulUse use) {
  const int64_t cols = parts[0].cols(), padded = (cols + kBlock - 1) / kBlock * kBlock;
  const bool blocks =
      std::all_of(parts.begin(), parts.end(), [](const Tensor& t) { return dtype_info(t.dtype).block_elems == 32; });
  return use == MatmulUse::LargeBatch && blocks && padded - cols <= cols / 8 ? padded : cols;
}

// Whether a matrix is kept as I8 where that is faster.
static bool to_i8(const Tensor& t, int64_t packed_in, MatmulUse use) {
  if (use == MatmulUse::LargeBatch) return t.dtype == DType::Q6_K || packed_in > t.cols();
  return use == MatmulUse::RoundedLargeBatch && t.dtype == DType::F32 && t.cols() % kBlock == 0;
}

static void pack_part(ThreadPool& pool, const Tensor& t, const CpuLinear::Part& part, int64_t packed_in, int group) {
  const int64_t rows = t.rows(), cols = t.cols();
  const int64_t row_bytes = static_cast<int64_t>(dtype_bytes(t.dtype, cols));
  pool.parallel_for((rows + kPanelRows - 1) / kPanelRows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int count = static_cast<int>(std::min<int64_t>(kPanelRows, rows - p * kPanelRows));
      const PanelSource rows_of{t.data + p * kPanelRows * row_bytes, row_bytes, count, cols};
      const PanelView panel = panel_view(part.type, part.own.data(), packed_in, p, group);
      if (part.type == PanelType::I8)
        pack_i8(t.dtype, rows_of, panel);
      else
        pack_panel(part.type, rows_of, panel);
    }
  });
}

std::unique_ptr<CpuLinear> upload_linear(ThreadPool& pool, int group, const std::vector<Tensor>& parts,
                                         const float* bias, MatmulUse use, bool prefers_i8, SharedPanels* shared) {
  KE_ASSERT(!parts.empty());
  auto linear = std::make_unique<CpuLinear>();
  linear->in = parts[0].cols();
  linear->packed_in = packed_cols(parts, use);
  for (const Tensor& t : parts) {
    check_part(t, linear->in);
    const int64_t rows = t.rows();
    CpuLinear::Part part;
    part.type = panel_type(t.dtype, prefers_i8 && to_i8(t, linear->packed_in, use));
    part.first = linear->out;
    part.rows = rows;
    part.groups = (rows + kPanelRows * group - 1) / (kPanelRows * group);
    part.group_bytes = panel_bytes(part.type, linear->packed_in) * group;
    if (bias) {
      part.bias = Memory(static_cast<size_t>(part.groups) * group * kPanelRows * sizeof(float));
      std::memcpy(part.bias.data(), bias + linear->out, static_cast<size_t>(rows) * sizeof(float));
    }
    const PanelKey key{part.type, linear->packed_in, part.bytes()};
    part.data = shared ? shared->find(t, key) : nullptr;
    if (!part.data) {
      part.own = Memory(part.bytes());
      pack_part(pool, t, part, linear->packed_in, group);
      part.data = shared ? shared->keep(t, key, part.own.data()) : nullptr;
    }
    if (part.data) {
      part.own = Memory();
      linear->shared = shared->file();
    } else {
      part.data = part.own.data();
    }
    (part.type != PanelType::I8 && dtype_info(t.dtype).block_elems == 1 ? linear->floats : linear->quantized) = true;
    linear->out += rows;
    linear->parts.push_back(std::move(part));
  }
  return linear;
}

}  // namespace ke::cpu
