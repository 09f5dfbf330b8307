// The types with one float16 scale (and offset) per 32 values: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1. Layouts: blocks.h.
#include <cmath>
#include <cstring>

#include "quant/block_codec.h"
#include "quant/blocks.h"
#include "quant/codec.h"

namespace ke {

namespace {

constexpr int block = 32;

void unpack4(const uint8_t* qs, uint8_t* q) {
  for (int j = 0; j < 16; ++j) {
    q[j] = qs[j] & 15;
    q[j + 16] = qs[j] >> 4;
  }
}

void pack4(const uint8_t* q, uint8_t* qs) {
  for (int j = 0; j < 16; ++j) qs[j] = static_cast<uint8_t>((q[j] & 15) | (q[j + 16] & 15) << 4);
}

void unpack5(const uint8_t* qs, const uint8_t* qh, uint8_t* q) {
  unpack4(qs, q);
  for (int i = 0; i < block; ++i) q[i] = static_cast<uint8_t>(q[i] | ((qh[i / 8] >> i % 8) & 1) << 4);
}

void pack5(const uint8_t* q, uint8_t* qs, uint8_t* qh) {
  pack4(q, qs);
  std::memset(qh, 0, 4);
  for (int i = 0; i < block; ++i) qh[i / 8] = static_cast<uint8_t>(qh[i / 8] | (q[i] >> 4) << i % 8);
}

}  // namespace

void decode_q8_0(const void* blocks, float* out, int64_t n) {
  const BlockQ8_0* b = static_cast<const BlockQ8_0*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    const float d = f16_to_f32(b[k].d);
    for (int i = 0; i < block; ++i) out[k * block + i] = d * b[k].qs[i];
  }
}

void decode_q4_0(const void* blocks, float* out, int64_t n) {
  const BlockQ4_0* b = static_cast<const BlockQ4_0*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    const float d = f16_to_f32(b[k].d);
    uint8_t q[block];
    unpack4(b[k].qs, q);
    for (int i = 0; i < block; ++i) out[k * block + i] = d * static_cast<float>(q[i] - 8);
  }
}

void decode_q5_0(const void* blocks, float* out, int64_t n) {
  const BlockQ5_0* b = static_cast<const BlockQ5_0*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    const float d = f16_to_f32(b[k].d);
    uint8_t q[block];
    unpack5(b[k].qs, b[k].qh, q);
    for (int i = 0; i < block; ++i) out[k * block + i] = d * static_cast<float>(q[i] - 16);
  }
}

void decode_q4_1(const void* blocks, float* out, int64_t n) {
  const BlockQ4_1* b = static_cast<const BlockQ4_1*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    const float d = f16_to_f32(b[k].d), m = f16_to_f32(b[k].m);
    uint8_t q[block];
    unpack4(b[k].qs, q);
    for (int i = 0; i < block; ++i) out[k * block + i] = d * q[i] + m;
  }
}

void decode_q5_1(const void* blocks, float* out, int64_t n) {
  const BlockQ5_1* b = static_cast<const BlockQ5_1*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    const float d = f16_to_f32(b[k].d), m = f16_to_f32(b[k].m);
    uint8_t q[block];
    unpack5(b[k].qs, b[k].qh, q);
    for (int i = 0; i < block; ++i) out[k * block + i] = d * q[i] + m;
  }
}

void encode_q8_0(const float* in, void* blocks, int64_t n, int64_t, const float*) {
  BlockQ8_0* b = static_cast<BlockQ8_0*>(blocks);
  for (int64_t k = 0; k < n / block; ++k, in += block) {
    float top = 0;
    for (int i = 0; i < block; ++i) top = std::fmax(top, std::fabs(in[i]));
    b[k].d = f32_to_f16(top / 127);
    const float d = f16_to_f32(b[k].d), inverse = d > 0 ? 1 / d : 0;
    for (int i = 0; i < block; ++i)
      b[k].qs[i] = static_cast<int8_t>(std::fmax(-127.f, std::fmin(127.f, std::nearbyint(in[i] * inverse))));
  }
}

namespace {

// Codes 0..2*zero-1 of value d * (q - zero): the value of largest magnitude gets code 0.
uint16_t symmetric(const float* in, int zero, uint8_t* q) {
  float top = 0;
  for (int i = 0; i < block; ++i)
    if (std::fabs(in[i]) > std::fabs(top)) top = in[i];
  const uint16_t stored = f32_to_f16(top / static_cast<float>(-zero));
  const float d = f16_to_f32(stored), inverse = d != 0 ? 1 / d : 0;
  for (int i = 0; i < block; ++i)
    q[i] = static_cast<uint8_t>(
        std::fmax(0.f, std::fmin(2.f * static_cast<float>(zero) - 1, std::nearbyint(in[i] * inverse) + static_cast<float>(zero))));
  return stored;
}

// Codes 0..steps of value d * q + m.
void affine(const float* in, int steps, uint16_t* d_stored, uint16_t* m_stored, uint8_t* q) {
  float low = in[0], high = in[0];
  for (int i = 1; i < block; ++i) {
    low = std::fmin(low, in[i]);
    high = std::fmax(high, in[i]);
  }
  *d_stored = f32_to_f16((high - low) / static_cast<float>(steps));
  *m_stored = f32_to_f16(low);
  const float d = f16_to_f32(*d_stored), m = f16_to_f32(*m_stored), inverse = d > 0 ? 1 / d : 0;
  for (int i = 0; i < block; ++i)
    q[i] = static_cast<uint8_t>(
        std::fmax(0.f, std::fmin(static_cast<float>(steps), std::nearbyint((in[i] - m) * inverse))));
}

}  // namespace

void encode_q4_0(const float* in, void* blocks, int64_t n, int64_t, const float*) {
  BlockQ4_0* b = static_cast<BlockQ4_0*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    uint8_t q[block];
    b[k].d = symmetric(in + k * block, 8, q);
    pack4(q, b[k].qs);
  }
}

void encode_q5_0(const float* in, void* blocks, int64_t n, int64_t, const float*) {
  BlockQ5_0* b = static_cast<BlockQ5_0*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    uint8_t q[block];
    b[k].d = symmetric(in + k * block, 16, q);
    pack5(q, b[k].qs, b[k].qh);
  }
}

void encode_q4_1(const float* in, void* blocks, int64_t n, int64_t, const float*) {
  BlockQ4_1* b = static_cast<BlockQ4_1*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    uint8_t q[block];
    affine(in + k * block, 15, &b[k].d, &b[k].m, q);
    pack4(q, b[k].qs);
  }
}

void encode_q5_1(const float* in, void* blocks, int64_t n, int64_t, const float*) {
  BlockQ5_1* b = static_cast<BlockQ5_1*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    uint8_t q[block];
    affine(in + k * block, 31, &b[k].d, &b[k].m, q);
    pack5(q, b[k].qs, b[k].qh);
  }
}

}  // namespace ke
