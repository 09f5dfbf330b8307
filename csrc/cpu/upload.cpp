#include "cpu/upload.h"

#include <algorithm>
#include <cstring>

#include "backend/shapes.h"
#include "base/error.h"
#include "cpu/panels.h"

namespace ke::cpu {

std::unique_ptr<CpuLinear> upload_linear(ThreadPool& pool, int group, const std::vector<Tensor>& parts,
                                         const float* bias, bool to_i8) {
  KE_ASSERT(!parts.empty());
  auto linear = std::make_unique<CpuLinear>();
  linear->in = parts[0].cols();
  for (const Tensor& t : parts) {
    check_part(t, linear->in);
    const int64_t rows = t.rows(), cols = t.cols();
    CpuLinear::Part part;
    part.type = panel_type(t.dtype, to_i8);
    part.first = linear->out;
    part.rows = rows;
    part.groups = (rows + kPanelRows * group - 1) / (kPanelRows * group);
    part.group_bytes = panel_bytes(part.type, cols) * group;
    part.data = Memory(static_cast<size_t>(part.groups * part.group_bytes));
    if (bias) {
      part.bias = Memory(static_cast<size_t>(part.groups) * group * kPanelRows * sizeof(float));
      std::memcpy(part.bias.data(), bias + linear->out, static_cast<size_t>(rows) * sizeof(float));
    }
    const int64_t row_bytes = static_cast<int64_t>(dtype_bytes(t.dtype, cols));
    pool.parallel_for((rows + kPanelRows - 1) / kPanelRows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const int count = static_cast<int>(std::min<int64_t>(kPanelRows, rows - p * kPanelRows));
        pack_panel(part.type, {t.data + p * kPanelRows * row_bytes, row_bytes, count, cols},
                   panel_view(part.type, part.data.data(), cols, p, group));
      }
    });
    (dtype_info(t.dtype).block_elems == 1 ? linear->floats : linear->quantized) = true;
    linear->out += rows;
    linear->parts.push_back(std::move(part));
  }
  return linear;
}

}  // namespace ke::cpu
