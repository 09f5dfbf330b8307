// Q6_K requantized to codes of 8 bits with one scale per 256 values, for matrices that meet many rows at once. Q6_K
// multiplies sums by an integer scale every 16 values, on the ports that the products need too: at most 80 % of the
// products' peak; with one float scale per block of activations nothing is left between the products. A value is off by
// at most 1/254 of its block's largest, about 0.4 of Q6_K's own error for Gaussian weights (docs/quantization.md).
#pragma once
#include <cstdint>

#include "quant/blocks.h"

namespace ke {

// 256 codes + 128, and the scale with which (code - 128) comes back to the block's values.
float requantize_i8(const BlockQ6_K& block, uint8_t* codes);
// The same of 256 values, which a type of 32-value blocks gives.
float quantize_i8(const float* values, uint8_t* codes);

}  // namespace ke
