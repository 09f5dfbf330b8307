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

// The range that 16 dimensions of n values have, in 1 / share steps around its middle: (value - middle) * inverse is a
// code.
struct ValueRange {
  f32x16 middle, step, inverse;

  ValueRange(const float* v, int64_t stride, int64_t n, float share) {
    f32x16 low = load(v), high = low, all = zero();
    for (int64_t i = 0; i < n; ++i) {
      const f32x16 x = load(v + i * stride);
      low = min(x, low), high = max(x, high), all = add(all, x);
    }
    // 0 times the sum lets a NaN or an infinity through, which minimum and maximum may lose.
    middle = fma(all, zero(), mul(add(low, high), set1(0.5f)));
    const f32x16 whole = mul(sub(high, low), set1(share)), least = set1(7.888609052210118e-31f);
    inverse = select_less(whole, least, zero(), div(set1(1.0f), whole));
    step = select_less(whole, least, zero(), whole);
  }
  KE_INLINE i32x16 code(const float* v) const { return to_int(mul(sub(load(v), middle), inverse)); }
};

}  // namespace
}  // namespace ke::cpu::KE_ISA
