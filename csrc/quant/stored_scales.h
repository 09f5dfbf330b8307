// What the encoders of blocks share: scales as float16 holds them, and the order of blocks.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "quant/codec.h"
#include "quant/lanes.h"

namespace ke {

// The float16 value of smallest magnitude that is not nearer to zero: with it as a block's scale, all scales of
// sub-blocks stay in reach even where float16 has few bits left.
inline float f16_beyond(float exact) {
  const uint16_t nearest = f32_to_f16(exact);
  const float value = f16_to_f32(nearest);
  return std::fabs(value) < std::fabs(exact) ? f16_to_f32(static_cast<uint16_t>(nearest + 1)) : value;
}

// Float16 numbers of four blocks, as bits and as values: codes are rounded for the scale that is stored.
struct StoredScales {
  uint16_t bits[4];
  F4 value;

  // offset: added to each one's bits, which go up with the magnitude.
  explicit StoredScales(F4 exact, int offset = 0) {
    for (int j = 0; j < 4; ++j) {
      bits[j] = static_cast<uint16_t>(f32_to_f16(exact[j]) + offset);
      value[j] = f16_to_f32(bits[j]);
    }
  }
};

// The stored scale with the smallest error, the nearest one or the next larger: near float16's smallest numbers, where
// its steps are large, the nearest may be far too small. error_of(scale): what it really gives, F4.
template <class Error>
StoredScales best_stored(F4 scale, const Error& error_of) {
  StoredScales best(scale);
  const StoredScales larger(scale, 1);
  const I4 better = error_of(larger.value) < error_of(best.value);
  best.value = pick(better, larger.value, best.value);
  for (int j = 0; j < 4; ++j)
    if (better[j]) best.bits[j] = larger.bits[j];
  return best;
}

// Calls body(first block, number of blocks <= 4, their importance) along every row, a block being 32 values. Without
// importance all values are one row.
template <class Body>
void for_groups(int64_t n, int64_t row_length, const float* importance, const Body& body) {
  const int64_t row_blocks = (importance ? row_length : n) / 32;
  for (int64_t row = 0; row < n / 32; row += row_blocks)
    for (int64_t k = 0; k < row_blocks; k += 4)
      body(row + k, static_cast<int>(std::min<int64_t>(4, row_blocks - k)), importance ? importance + k * 32 : nullptr);
}

// Calls body(block, its 256 values, their importance): importance repeats with every row.
template <class Body>
void for_blocks(const float* in, int64_t n, int64_t row_length, const float* importance, const Body& body) {
  for (int64_t k = 0; k < n / 256; ++k) body(k, in + k * 256, importance ? importance + k * 256 % row_length : nullptr);
}

}  // namespace ke
