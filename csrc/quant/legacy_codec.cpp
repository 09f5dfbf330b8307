// The types with one float16 scale (and offset) per 32 values: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1. Layouts: blocks.h.
#include <cstring>

#include "quant/block_codec.h"
#include "quant/blocks.h"
#include "quant/scale_search.h"
#include "quant/stored_scales.h"

namespace ke {

namespace {

constexpr int block = 32;

void unpack4(const uint8_t* qs, uint8_t* q) {
  for (int j = 0; j < 16; ++j) {
    q[j] = qs[j] & 15;
    q[j + 16] = qs[j] >> 4;
  }
}

// Codes plus zero are what is stored.
void pack4(const int8_t* q, int zero, uint8_t* qs) {
  for (int j = 0; j < 16; ++j) qs[j] = static_cast<uint8_t>(((q[j] + zero) & 15) | ((q[j + 16] + zero) & 15) << 4);
}

void unpack5(const uint8_t* qs, const uint8_t* qh, uint8_t* q) {
  unpack4(qs, q);
  for (int i = 0; i < block; ++i) q[i] = static_cast<uint8_t>(q[i] | ((qh[i / 8] >> i % 8) & 1) << 4);
}

void pack5(const int8_t* q, int zero, uint8_t* qs, uint8_t* qh) {
  pack4(q, zero, qs);
  std::memset(qh, 0, 4);
  for (int i = 0; i < block; ++i) qh[i / 8] = static_cast<uint8_t>(qh[i / 8] | ((q[i] + zero) >> 4 & 1) << i % 8);
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

namespace {

constexpr int group = 4;  // blocks that are searched side by side

StoredScales best_of(const Columns<block>& c, F4 scale, F4 offset, F4 low, F4 high) {
  return best_stored(scale, [&](F4 stored) { return measure(c, stored, offset, low, high).error; });
}

// x ~ d * q with q in low..high; pack(block, codes) stores one block's.
template <class Block, class Pack>
void encode_symmetric(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance, int low,
                      int high, int candidates, const Pack& pack) {
  Block* out = static_cast<Block*>(blocks);
  for_groups(n, row_length, importance, [&](int64_t first, int used, const float* weights) {
    Columns<block> c;
    c.load(in + first * block, weights, used);
    const F4 lowest = splat(static_cast<float>(low)), highest = splat(static_cast<float>(high));
    const StoredScales d = best_of(c, search_symmetric(c, low, high, candidates).scale, splat(0), lowest, highest);
    int8_t q[group * block];
    c.write_codes(d.value, splat(0), lowest, highest, q);
    for (int j = 0; j < used; ++j) {
      out[first + j].d = d.bits[j];
      pack(out[first + j], q + j * block);
    }
  });
}

// x ~ d * q + m with q in 0..steps.
template <class Block, class Pack>
void encode_affine(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance, int steps,
                   const Pack& pack) {
  Block* out = static_cast<Block*>(blocks);
  for_groups(n, row_length, importance, [&](int64_t first, int used, const float* weights) {
    Columns<block> c;
    c.load(in + first * block, weights, used);
    const ScaleFit fit = AffineSearch<block>(c, steps, false).best();
    const F4 highest = splat(static_cast<float>(steps));
    const StoredScales m(fit.offset), d = best_of(c, fit.scale, m.value, splat(0), highest);
    int8_t q[group * block];
    c.write_codes(d.value, m.value, splat(0), highest, q);
    for (int j = 0; j < used; ++j) {
      out[first + j].d = d.bits[j];
      out[first + j].m = m.bits[j];
      pack(out[first + j], q + j * block);
    }
  });
}

}  // namespace

void encode_q8_0(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance) {
  encode_symmetric<BlockQ8_0>(in, blocks, n, row_length, importance, -127, 127, 9,
                              [](BlockQ8_0& b, const int8_t* q) { std::memcpy(b.qs, q, block); });
}

void encode_q4_0(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance) {
  encode_symmetric<BlockQ4_0>(in, blocks, n, row_length, importance, -8, 7, 13,
                              [](BlockQ4_0& b, const int8_t* q) { pack4(q, 8, b.qs); });
}

void encode_q5_0(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance) {
  encode_symmetric<BlockQ5_0>(in, blocks, n, row_length, importance, -16, 15, 13,
                              [](BlockQ5_0& b, const int8_t* q) { pack5(q, 16, b.qs, b.qh); });
}

void encode_q4_1(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance) {
  encode_affine<BlockQ4_1>(in, blocks, n, row_length, importance, 15,
                           [](BlockQ4_1& b, const int8_t* q) { pack4(q, 0, b.qs); });
}

void encode_q5_1(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance) {
  encode_affine<BlockQ5_1>(in, blocks, n, row_length, importance, 31,
                           [](BlockQ5_1& b, const int8_t* q) { pack5(q, 0, b.qs, b.qh); });
}

}  // namespace ke
