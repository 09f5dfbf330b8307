// F32, F16 and BF16: conversions by integer arithmetic and selects, so that compilers vectorize the loops, and without
// reliance on subnormal float32 arithmetic, which a host process may have switched off.
#include <bit>
#include <cstring>

#include "quant/block_codec.h"
#include "quant/codec.h"

namespace ke {

static inline uint32_t bits_of(float f) { return std::bit_cast<uint32_t>(f); }
static inline float float_of(uint32_t u) { return std::bit_cast<float>(u); }

static inline float from_f16(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t magnitude = h & 0x7fff;
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t special = (magnitude << 13) | 0x7f800000 | (magnitude > 0x7c00 ? 0x400000 : 0);  // NaNs become quiet
  const uint32_t subnormal = bits_of(float_of(0x3f000000 + magnitude) - 0.5f);  // 0.5 + m 2^-24 - 0.5, exact
  const uint32_t value = magnitude < 0x400 ? subnormal : magnitude < 0x7c00 ? normal : special;
  return float_of(sign | value);
}

static inline uint16_t to_f16(float f) {
  const uint32_t bits = bits_of(f);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000;  // the addition rounds to even
  const uint32_t nan = 0x7e00 | ((magnitude >> 13) & 0x3ff);
  const uint32_t value = magnitude < 0x38800000    ? subnormal
                         : magnitude < 0x477ff000  ? normal
                         : magnitude <= 0x7f800000 ? 0x7c00
                                                   : nan;
  return static_cast<uint16_t>(sign | value);
}

static inline uint16_t to_bf16(float f) {
  const uint32_t bits = bits_of(f);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

float f16_to_f32(uint16_t h) { return from_f16(h); }
uint16_t f32_to_f16(float f) { return to_f16(f); }
float bf16_to_f32(uint16_t h) { return float_of(static_cast<uint32_t>(h) << 16); }
uint16_t f32_to_bf16(float f) { return to_bf16(f); }

void decode_f32(const void* blocks, float* out, int64_t n) { std::memcpy(out, blocks, static_cast<size_t>(n) * 4); }

// Stored values may lie at any address, hence the copies: they compile to plain loads and stores.
void decode_f16(const void* blocks, float* out, int64_t n) {
  const uint8_t* in = static_cast<const uint8_t*>(blocks);
  for (int64_t i = 0; i < n; ++i) {
    uint16_t h;
    std::memcpy(&h, in + 2 * i, 2);
    out[i] = from_f16(h);
  }
}

void decode_bf16(const void* blocks, float* out, int64_t n) {
  const uint8_t* in = static_cast<const uint8_t*>(blocks);
  for (int64_t i = 0; i < n; ++i) {
    uint16_t h;
    std::memcpy(&h, in + 2 * i, 2);
    out[i] = bf16_to_f32(h);
  }
}

void encode_f32(const float* in, void* blocks, int64_t n, int64_t, const float*) {
  std::memcpy(blocks, in, static_cast<size_t>(n) * 4);
}

void encode_f16(const float* in, void* blocks, int64_t n, int64_t, const float*) {
  uint8_t* out = static_cast<uint8_t*>(blocks);
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t h = to_f16(in[i]);
    std::memcpy(out + 2 * i, &h, 2);
  }
}

void encode_bf16(const float* in, void* blocks, int64_t n, int64_t, const float*) {
  uint8_t* out = static_cast<uint8_t*>(blocks);
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t h = to_bf16(in[i]);
    std::memcpy(out + 2 * i, &h, 2);
  }
}

}  // namespace ke
