// How IQ4_NL and IQ4_XS pack codes and scales into the bytes of a block (blocks.h).
#pragma once
#include <cstdint>

#include "quant/blocks.h"

namespace ke {

// 32 codes 0..15.
inline void unpack_table_codes(const uint8_t* qs, uint8_t* q) {
  for (int j = 0; j < 16; ++j) {
    q[j] = qs[j] & 15;
    q[j + 16] = qs[j] >> 4;
  }
}

inline void pack_table_codes(const uint8_t* q, uint8_t* qs) {
  for (int j = 0; j < 16; ++j) qs[j] = static_cast<uint8_t>(q[j] | q[j + 16] << 4);
}

// The 8 scales of IQ4_XS as they multiply: -32..31.
inline void unpack_iq4_scales(const BlockIQ4_XS& b, int8_t* scale) {
  for (int s = 0; s < 8; ++s) {
    const int low = b.scales_l[s / 2] >> 4 * (s % 2) & 15, high = b.scales_h[s / 4] >> 2 * (s % 4) & 3;
    scale[s] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

inline void pack_iq4_scales(const int8_t* scale, BlockIQ4_XS& b) {
  for (uint8_t& byte : b.scales_h) byte = 0;
  for (uint8_t& byte : b.scales_l) byte = 0;
  for (int s = 0; s < 8; ++s) {
    const int v = scale[s] + 32;
    b.scales_l[s / 2] = static_cast<uint8_t>(b.scales_l[s / 2] | (v & 15) << 4 * (s % 2));
    b.scales_h[s / 4] = static_cast<uint8_t>(b.scales_h[s / 4] | (v >> 4) << 2 * (s % 4));
  }
}

}  // namespace ke
