// The values that an encoded block can hold with the scales that it has: for encoders that choose codes one by one.
#pragma once
#include <cstdint>

#include "quant/dtype.h"

namespace ke {

constexpr int kLargestBlock = 256;  // values

// Value i is step[i] * q + low[i] for a code q in first..last; a step may be 0 or negative.
struct BlockGrid {
  float step[kLargestBlock], low[kLargestBlock];
  float first, last;
};

// Types that have one: Q8_0, Q4_0 and the K-quants.
bool has_grid(DType dtype);
// Of one block. Internal error for a type without one.
void read_grid(DType dtype, const void* block, BlockGrid& grid);
// Replaces the codes of one block, each in first..last, and keeps its scales.
void store_codes(DType dtype, const int8_t* codes, void* block);

}  // namespace ke
