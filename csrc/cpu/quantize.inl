// Activations quantized per row and block, as Packed has them (kernels.h).
#pragma once
#include "cpu/unit.inl"

namespace ke::cpu::KE_ISA {
namespace {

// A tile's activations of one block: column c's codes at codes + c * kBlock, its sums, mins and starts likewise.
struct TileX {
  int8_t* codes;
  float* scale;
  int32_t* sum16;
  int32_t* sum32;
  int8_t* mins;
  int32_t* starts;
  int32_t* total;
};

// Where row `row` of a block begins.
inline TileX tile_x(const Packed& x, int64_t block, int64_t row) {
  const int64_t per = kBlock / x.block, at = block / per * x.rows + row, part = block % per;
  return {x.codes + at * kBlock + part * x.block,
          x.scale + block * x.rows + row,
          x.sum16 + at * 16,
          x.sum32 + at * 8 + part,
          x.mins + at * 16,
          x.starts + at * kStarts,
          x.total + at};
}

// One block of one row: scale = amax / 127, code = nearest(x * (127 / amax)), ties to even, so |code| <= 127.
// Blocks whose largest magnitude is below 2^-100 become zero; a NaN or infinity gives scale NaN or infinity.
inline float quantize_block(const float* x, int n, int8_t* codes) {
  i32x16 top = set1(0);  // magnitudes compare like the integers of their bits, NaN above all
  for (int i = 0; i < n; i += 16) top = max(top, bits_of(abs(load(x + i))));
  const int32_t amax_bits = max_lane(top);
  float amax;
  __builtin_memcpy(&amax, &amax_bits, 4);
  const bool zero_block = amax < 7.888609052210118e-31f;
  const f32x16 inverse = set1(zero_block ? 0.0f : 127.0f / amax);
  for (int i = 0; i < n; i += 16) store_bytes(codes + i, to_int(mul(load(x + i), inverse)));
  return zero_block ? 0.0f : amax / 127.0f;
}

}  // namespace
}  // namespace ke::cpu::KE_ISA
