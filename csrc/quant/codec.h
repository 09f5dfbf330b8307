// Scalar encode and decode of every storage type: the definition of each format.
#pragma once
#include <cstdint>

#include "quant/dtype.h"

namespace ke {

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);  // round to nearest even
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);  // round to nearest even

// blocks -> n floats; n is a multiple of the type's block_elems (else InvalidRequest).
// Equals the decoders of the gguf package bit for bit; any bytes are accepted (scales may be infinite or NaN).
void decode(DType dtype, const void* blocks, float* out, int64_t n);

// n floats (n a multiple of row_length, row_length of block_elems) -> blocks. importance: weights of the squared error,
// one per value of the row, used for every row; nullptr: the type's default (docs/quantization.md). Deterministic.
// InvalidRequest, naming the index (counted from first_index), for NaN, infinity, or a magnitude the type cannot hold.
void encode(DType dtype, const float* in, void* blocks, int64_t n, int64_t row_length,
            const float* importance = nullptr, int64_t first_index = 0);

}  // namespace ke
