// What a converter makes of trained tensors that are published as changes of others, in float32.
#pragma once
#include <cstdint>

namespace ke {

// w (rows, cols) += scale * b a; b (rows, rank), a (rank, cols): a low-rank change (LoRA).
void add_low_rank(float* w, const float* b, const float* a, int64_t rows, int64_t cols, int64_t rank, float scale);

// in (from, from, width) -> out (to, to, width): torch's bicubic interpolation of a grid, align_corners=False, without
// antialiasing; cells beyond the edge are those at the edge.
void resize_grid(const float* in, float* out, int64_t from, int64_t to, int64_t width);

}  // namespace ke
