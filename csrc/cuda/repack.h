// Repacks a stored matrix for the device, panel by panel, so that the host never holds more than a few rows twice.
#pragma once
#include <cstdint>
#include <optional>

#include "backend/backend.h"
#include "cuda/layout.h"
#include "format/tensor.h"

namespace ke::cuda {

// The format that a quantized matrix with rows of `cols` values takes; none: it is decoded to float32 at upload (Q4_1,
// Q5_1, and rows that are no multiple of 256). Q5_0 is packed as Q8_0: its codes less 16 fit a byte. Q6_K
// for many rows is packed as I8.
std::optional<Format> format_of(DType dtype, int64_t cols, MatmulUse use);

// One panel (unit_grid(cols / 256).rows rows) from row `first_row` on: all its units; absent rows are zero. `out` has
// steps * unit_bytes(format) bytes.
void pack_panel(const Tensor& matrix, Format format, int64_t first_row, uint8_t* out);

}  // namespace ke::cuda
