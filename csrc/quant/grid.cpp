#include "quant/grid.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "quant/codec.h"
#include "quant/k_layout.h"
#include "quant/table_layout.h"
#include "quant/table_search.h"

namespace ke {

namespace {

// d and dmin with 8 scales and mins: Q4_K, Q5_K.
template <class Block>
void affine_grid(const void* block, float last, BlockGrid& grid) {
  const auto& b = *static_cast<const Block*>(block);
  const float d = f16_to_f32(b.d), dmin = f16_to_f32(b.dmin);
  uint8_t scale[8], min[8];
  unpack_scales(b.scales, scale, min);
  for (int i = 0; i < 256; ++i) {
    grid.step[i] = d * scale[i / 32];
    grid.low[i] = -(dmin * min[i / 32]);
  }
  grid.first = 0;
  grid.last = last;
}

void q2_grid(const BlockQ2_K& b, BlockGrid& grid) {
  const float d = f16_to_f32(b.d), dmin = f16_to_f32(b.dmin);
  for (int i = 0; i < 256; ++i) {
    grid.step[i] = d * (b.scales[i / 16] & 15);
    grid.low[i] = -(dmin * (b.scales[i / 16] >> 4));
  }
  grid.first = 0;
  grid.last = 3;
}

// d with 16 scales: Q3_K, Q6_K.
void signed_grid(float d, const int8_t* scale, float first, float last, BlockGrid& grid) {
  for (int i = 0; i < 256; ++i) {
    grid.step[i] = d * scale[i / 16];
    grid.low[i] = 0;
  }
  grid.first = first;
  grid.last = last;
}

void even_grid(float d, float first, float last, BlockGrid& grid) {
  for (int i = 0; i < 32; ++i) {
    grid.step[i] = d;
    grid.low[i] = 0;
  }
  grid.first = first;
  grid.last = last;
}

}  // namespace

bool has_grid(DType dtype) {
  return dtype == DType::Q8_0 || dtype == DType::Q4_0 || dtype == DType::Q2_K || dtype == DType::Q3_K ||
         dtype == DType::Q4_K || dtype == DType::Q5_K || dtype == DType::Q6_K || dtype == DType::IQ4_NL ||
         dtype == DType::IQ4_XS;
}

float BlockGrid::nearest(float code) const {
  if (of_table) return table_rounding(code);
  return std::min(std::max(std::nearbyint(code), first), last);
}

void read_grid(DType dtype, const void* block, BlockGrid& grid) {
  if (dtype == DType::Q2_K) return q2_grid(*static_cast<const BlockQ2_K*>(block), grid);
  if (dtype == DType::Q4_K) return affine_grid<BlockQ4_K>(block, 15, grid);
  if (dtype == DType::Q5_K) return affine_grid<BlockQ5_K>(block, 31, grid);
  if (dtype == DType::Q8_0) return even_grid(f16_to_f32(static_cast<const BlockQ8_0*>(block)->d), -127, 127, grid);
  if (dtype == DType::Q4_0) return even_grid(f16_to_f32(static_cast<const BlockQ4_0*>(block)->d), -8, 7, grid);
  if (dtype == DType::Q3_K) {
    const auto& b = *static_cast<const BlockQ3_K*>(block);
    int8_t scale[16];
    unpack_q3_scales(b.scales, scale);
    return signed_grid(f16_to_f32(b.d), scale, -4, 3, grid);
  }
  if (dtype == DType::IQ4_NL) {
    even_grid(f16_to_f32(static_cast<const BlockIQ4_NL*>(block)->d), kTable.front(), kTable.back(), grid);
    grid.of_table = true;
    return;
  }
  if (dtype == DType::IQ4_XS) {
    const auto& b = *static_cast<const BlockIQ4_XS*>(block);
    int8_t scale[8], each[16];
    unpack_iq4_scales(b, scale);
    for (int s = 0; s < 16; ++s) each[s] = scale[s / 2];
    signed_grid(f16_to_f32(b.d), each, kTable.front(), kTable.back(), grid);
    grid.of_table = true;
    return;
  }
  KE_ASSERT(dtype == DType::Q6_K);
  const auto& b = *static_cast<const BlockQ6_K*>(block);
  signed_grid(f16_to_f32(b.d), b.scales, -32, 31, grid);
}

void store_codes(DType dtype, const int8_t* codes, void* block) {
  uint8_t q[kLargestBlock];
  if (dtype == DType::Q4_K) {
    std::memcpy(q, codes, 256);
    pack_nibbles(q, static_cast<BlockQ4_K*>(block)->qs);
  } else if (dtype == DType::Q5_K) {
    std::memcpy(q, codes, 256);
    pack_q5(q, *static_cast<BlockQ5_K*>(block));
  } else if (dtype == DType::Q8_0) {
    std::memcpy(static_cast<BlockQ8_0*>(block)->qs, codes, 32);
  } else if (dtype == DType::Q4_0) {
    auto& b = *static_cast<BlockQ4_0*>(block);
    for (int j = 0; j < 16; ++j) b.qs[j] = static_cast<uint8_t>((codes[j] + 8) | (codes[j + 16] + 8) << 4);
  } else if (dtype == DType::Q2_K) {
    std::memcpy(q, codes, 256);
    pack_q2(q, *static_cast<BlockQ2_K*>(block));
  } else if (dtype == DType::Q3_K) {
    pack_q3(codes, *static_cast<BlockQ3_K*>(block));
  } else if (dtype == DType::IQ4_NL || dtype == DType::IQ4_XS) {
    uint8_t* qs = dtype == DType::IQ4_NL ? static_cast<BlockIQ4_NL*>(block)->qs : static_cast<BlockIQ4_XS*>(block)->qs;
    const int values = dtype == DType::IQ4_NL ? 32 : 256;
    for (int i = 0; i < values; ++i) q[i] = table_rounding.code(codes[i]);
    for (int i = 0; i < values; i += 32) pack_table_codes(q + i, qs + i / 2);
  } else {
    KE_ASSERT(dtype == DType::Q6_K);
    pack_q6(codes, *static_cast<BlockQ6_K*>(block));
  }
}

}  // namespace ke
