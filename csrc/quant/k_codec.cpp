// The types with 6- or 8-bit scales of sub-blocks and float16 scales per 256 values: Q4_K, Q5_K, Q6_K. Layouts: blocks.h.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/block_codec.h"
#include "quant/blocks.h"
#include "quant/codec.h"

namespace ke {

namespace {

constexpr int block = 256;

void unpack_scales(const uint8_t* packed, uint8_t* scale, uint8_t* min) {
  for (int j = 0; j < 4; ++j) {
    scale[j] = packed[j] & 63;
    min[j] = packed[4 + j] & 63;
    scale[4 + j] = static_cast<uint8_t>((packed[8 + j] & 15) | (packed[j] >> 6) << 4);
    min[4 + j] = static_cast<uint8_t>(packed[8 + j] >> 4 | (packed[4 + j] >> 6) << 4);
  }
}

void pack_scales(const uint8_t* scale, const uint8_t* min, uint8_t* packed) {
  for (int j = 0; j < 4; ++j) {
    packed[j] = static_cast<uint8_t>(scale[j] | (scale[4 + j] >> 4) << 6);
    packed[4 + j] = static_cast<uint8_t>(min[j] | (min[4 + j] >> 4) << 6);
    packed[8 + j] = static_cast<uint8_t>((scale[4 + j] & 15) | (min[4 + j] & 15) << 4);
  }
}

void unpack_nibbles(const uint8_t* qs, uint8_t* q) {
  for (int p = 0; p < 4; ++p)
    for (int l = 0; l < 32; ++l) {
      q[64 * p + l] = qs[32 * p + l] & 15;
      q[64 * p + 32 + l] = qs[32 * p + l] >> 4;
    }
}

void pack_nibbles(const uint8_t* q, uint8_t* qs) {
  for (int p = 0; p < 4; ++p)
    for (int l = 0; l < 32; ++l)
      qs[32 * p + l] = static_cast<uint8_t>((q[64 * p + l] & 15) | (q[64 * p + 32 + l] & 15) << 4);
}

void decode_affine(uint16_t d_bits, uint16_t dmin_bits, const uint8_t* packed, const uint8_t* q, float* out) {
  const float d = f16_to_f32(d_bits), dmin = f16_to_f32(dmin_bits);
  uint8_t scale[8], min[8];
  unpack_scales(packed, scale, min);
  for (int s = 0; s < 8; ++s) {
    const float step = d * scale[s], low = dmin * min[s];
    for (int l = 0; l < 32; ++l) out[32 * s + l] = step * q[32 * s + l] - low;
  }
}

}  // namespace

void decode_q4_k(const void* blocks, float* out, int64_t n) {
  const BlockQ4_K* b = static_cast<const BlockQ4_K*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    uint8_t q[block];
    unpack_nibbles(b[k].qs, q);
    decode_affine(b[k].d, b[k].dmin, b[k].scales, q, out + k * block);
  }
}

void decode_q5_k(const void* blocks, float* out, int64_t n) {
  const BlockQ5_K* b = static_cast<const BlockQ5_K*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    uint8_t q[block];
    unpack_nibbles(b[k].qs, q);
    for (int s = 0; s < 8; ++s)
      for (int l = 0; l < 32; ++l)
        q[32 * s + l] = static_cast<uint8_t>(q[32 * s + l] | ((b[k].qh[l] >> s) & 1) << 4);
    decode_affine(b[k].d, b[k].dmin, b[k].scales, q, out + k * block);
  }
}

void decode_q6_k(const void* blocks, float* out, int64_t n) {
  const BlockQ6_K* b = static_cast<const BlockQ6_K*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    const float d = f16_to_f32(b[k].d);
    for (int h = 0; h < 2; ++h)
      for (int r = 0; r < 4; ++r)
        for (int l = 0; l < 32; ++l) {
          const int low = b[k].ql[64 * h + 32 * (r % 2) + l] >> (r < 2 ? 0 : 4) & 15;
          const int high = b[k].qh[32 * h + l] >> 2 * r & 3;
          const int i = 128 * h + 32 * r + l;
          out[k * block + i] = (d * b[k].scales[i / 16]) * static_cast<float>((low | high << 4) - 32);
        }
  }
}

namespace {

int clamp_round(float x, int low, int high) {
  return static_cast<int>(std::fmax(static_cast<float>(low), std::fmin(static_cast<float>(high), std::nearbyint(x))));
}

// Codes 0..steps, 6-bit scales and mins of one block of 256.
void encode_affine(const float* x, int steps, uint16_t* d_bits, uint16_t* dmin_bits, uint8_t* packed, uint8_t* q) {
  float step[8], low[8];
  for (int s = 0; s < 8; ++s) {
    float top = x[32 * s];
    low[s] = 0;
    for (int l = 0; l < 32; ++l) {
      low[s] = std::fmin(low[s], x[32 * s + l]);
      top = std::fmax(top, x[32 * s + l]);
    }
    step[s] = std::fmax(0.f, top - low[s]) / static_cast<float>(steps);
  }
  *d_bits = f32_to_f16(*std::max_element(step, step + 8) / 63);
  *dmin_bits = f32_to_f16(-*std::min_element(low, low + 8) / 63);
  const float d = f16_to_f32(*d_bits), dmin = f16_to_f32(*dmin_bits);
  uint8_t scale[8], min[8];
  for (int s = 0; s < 8; ++s) {
    scale[s] = static_cast<uint8_t>(clamp_round(d > 0 ? step[s] / d : 0, 0, 63));
    min[s] = static_cast<uint8_t>(clamp_round(dmin > 0 ? -low[s] / dmin : 0, 0, 63));
    const float a = d * scale[s], m = dmin * min[s], inverse = a > 0 ? 1 / a : 0;
    for (int l = 0; l < 32; ++l)
      q[32 * s + l] = static_cast<uint8_t>(clamp_round((x[32 * s + l] + m) * inverse, 0, steps));
  }
  pack_scales(scale, min, packed);
}

}  // namespace

void encode_q4_k(const float* in, void* blocks, int64_t n, int64_t, const float*) {
  BlockQ4_K* b = static_cast<BlockQ4_K*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    uint8_t q[block];
    encode_affine(in + k * block, 15, &b[k].d, &b[k].dmin, b[k].scales, q);
    pack_nibbles(q, b[k].qs);
  }
}

void encode_q5_k(const float* in, void* blocks, int64_t n, int64_t, const float*) {
  BlockQ5_K* b = static_cast<BlockQ5_K*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    uint8_t q[block];
    encode_affine(in + k * block, 31, &b[k].d, &b[k].dmin, b[k].scales, q);
    pack_nibbles(q, b[k].qs);
    std::memset(b[k].qh, 0, sizeof b[k].qh);
    for (int s = 0; s < 8; ++s)
      for (int l = 0; l < 32; ++l) b[k].qh[l] = static_cast<uint8_t>(b[k].qh[l] | (q[32 * s + l] >> 4) << s);
  }
}

void encode_q6_k(const float* in, void* blocks, int64_t n, int64_t, const float*) {
  BlockQ6_K* b = static_cast<BlockQ6_K*>(blocks);
  for (int64_t k = 0; k < n / block; ++k, in += block) {
    float step[16], top = 0;
    for (int s = 0; s < 16; ++s) {
      float peak = 0;
      for (int l = 0; l < 16; ++l)
        if (std::fabs(in[16 * s + l]) > std::fabs(peak)) peak = in[16 * s + l];
      step[s] = peak / -32;
      top = std::fmax(top, std::fabs(step[s]));
    }
    b[k].d = f32_to_f16(top / 127);
    const float d = f16_to_f32(b[k].d);
    uint8_t q[block];
    for (int s = 0; s < 16; ++s) {
      b[k].scales[s] = static_cast<int8_t>(clamp_round(d > 0 ? step[s] / d : 0, -127, 127));
      const float a = d * b[k].scales[s], inverse = a != 0 ? 1 / a : 0;
      for (int l = 0; l < 16; ++l)
        q[16 * s + l] = static_cast<uint8_t>(clamp_round(in[16 * s + l] * inverse, -32, 31) + 32);
    }
    for (int h = 0; h < 2; ++h)
      for (int l = 0; l < 32; ++l) {
        const uint8_t* v = q + 128 * h + l;
        b[k].ql[64 * h + l] = static_cast<uint8_t>((v[0] & 15) | (v[64] & 15) << 4);
        b[k].ql[64 * h + 32 + l] = static_cast<uint8_t>((v[32] & 15) | (v[96] & 15) << 4);
        b[k].qh[32 * h + l] =
            static_cast<uint8_t>(v[0] >> 4 | (v[32] >> 4) << 2 | (v[64] >> 4) << 4 | (v[96] >> 4) << 6);
      }
  }
}

}  // namespace ke
