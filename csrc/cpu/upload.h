// Weights in the CPU's own layout.
#pragma once
#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "base/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/memory.h"
#include "cpu/panels.h"
#include "cpu/shared_panels.h"

namespace ke::cpu {

// to_i8: I8 for Q6_K, float32 and the types of 32-value blocks (quant/requantize.h).
PanelType panel_type(DType dtype, bool to_i8);

// Up to 16 rows of a stored matrix.
struct PanelSource {
  const uint8_t* rows;
  int64_t row_bytes;
  int count;     // rows
  int64_t cols;  // values per row
};

// Writes one panel of zero-filled memory; rows it does not have stay zero, and so do their products.
void pack_panel(PanelType type, const PanelSource& source, const PanelView& panel);
// The same for I8, from Q6_K, float32 or a type of 32-value blocks (repack_i8.cpp).
void pack_i8(DType dtype, const PanelSource& source, const PanelView& panel);

struct OneRowShape;

class CpuLinear final : public Linear {
 public:
  struct Part {
    PanelType type;
    int64_t first;  // output row of the whole
    int64_t rows;
    int64_t groups;  // of panels
    int64_t group_bytes;
    const uint8_t* data;  // the panels, in `own` or in a file that processes share
    Memory own;
    Memory bias;  // one float per row of the groups, or empty
    size_t bytes() const { return static_cast<size_t>(groups * group_bytes); }
  };
  std::vector<Part> parts;
  int64_t packed_in = 0;                    // values per row in the panels: `in`, or more of which the last are 0
  bool floats = false;                      // some part has float weights
  bool quantized = false;                   // some part has not
  OneRowShape* one_row = nullptr;           // where there is a choice
  std::shared_ptr<const PanelFile> shared;  // where some part's panels are; may be nullptr
};

// group: panels that the kernels take at once (Kernels::panels). prefers_i8: Kernels::prefers_i8.
// Of a matrix for large batches, rows in 32-value blocks that grow by at most an eighth get zeros up to a multiple of
// 256 values: activations then come in blocks of 256, with an eighth of the floating-point steps. (KOSMOS-2.5's 3,968
// values become 4,096, BLIP-2's 1,408 become 1,536.) shared: where panels are looked up, or kept for others; may be
// nullptr.
std::unique_ptr<CpuLinear> upload_linear(ThreadPool& pool, int group, const std::vector<Tensor>& parts,
                                         const float* bias, MatmulUse use, bool prefers_i8, SharedPanels* shared);

}  // namespace ke::cpu
