// Scalar encode and decode of every storage type: the definition of each format.
#pragma once
#include <cstdint>

#include "quant/dtype.h"

namespace ke {

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);  // round to nearest even
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);  // round to nearest even

// blocks -> n floats; n is a multiple of the type's block_elems.
void decode(DType dtype, const void* blocks, float* out, int64_t n);

// n floats (n a multiple of block_elems) -> blocks. importance: n/row_length-independent weights of the
// squared error, one per value of the row (row_length of them, repeated per row), or nullptr for the type's default.
void encode(DType dtype, const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance = nullptr);

}  // namespace ke
