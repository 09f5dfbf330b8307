// The values that an encoded block can hold with the scales that it has: for encoders that choose codes one by one.
#pragma once
#include <cstdint>

#include "quant/dtype.h"

namespace ke {

constexpr int kLargestBlock = 256;  // values

// Value i is step[i] * q + low[i] for a code q in first..last; a step may be 0 or negative. Where the file's codes
// stand for the values of a table (IQ4_NL, IQ4_XS), those are the codes here.
struct BlockGrid {
  float step[kLargestBlock], low[kLargestBlock];
  float first, last;
  bool of_table = false;

  float nearest(float code) const;  // of the codes there are
};

// Types that have one: Q8_0, Q4_0, the K-quants, IQ4_NL and IQ4_XS.
bool has_grid(DType dtype);
// Of one block. Internal error for a type without one.
void read_grid(DType dtype, const void* block, BlockGrid& grid);
// Replaces the codes of one block, as nearest() gives them, and keeps its scales.
void store_codes(DType dtype, const int8_t* codes, void* block);

}  // namespace ke
