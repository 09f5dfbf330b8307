// How K-quants pack scales and codes into the bytes of a block (blocks.h).
#pragma once
#include <cstdint>
#include <cstring>

#include "quant/blocks.h"

namespace ke {

inline void unpack_scales(const uint8_t* packed, uint8_t* scale, uint8_t* min) {
  for (int j = 0; j < 4; ++j) {
    scale[j] = packed[j] & 63;
    min[j] = packed[4 + j] & 63;
    scale[4 + j] = static_cast<uint8_t>((packed[8 + j] & 15) | (packed[j] >> 6) << 4);
    min[4 + j] = static_cast<uint8_t>(packed[8 + j] >> 4 | (packed[4 + j] >> 6) << 4);
  }
}

inline void pack_scales(const uint8_t* scale, const uint8_t* min, uint8_t* packed) {
  for (int j = 0; j < 4; ++j) {
    packed[j] = static_cast<uint8_t>(scale[j] | (scale[4 + j] >> 4) << 6);
    packed[4 + j] = static_cast<uint8_t>(min[j] | (min[4 + j] >> 4) << 6);
    packed[8 + j] = static_cast<uint8_t>((scale[4 + j] & 15) | (min[4 + j] & 15) << 4);
  }
}

inline void unpack_nibbles(const uint8_t* qs, uint8_t* q) {
  for (int p = 0; p < 4; ++p)
    for (int l = 0; l < 32; ++l) {
      q[64 * p + l] = qs[32 * p + l] & 15;
      q[64 * p + 32 + l] = qs[32 * p + l] >> 4;
    }
}

inline void pack_nibbles(const uint8_t* q, uint8_t* qs) {
  for (int p = 0; p < 4; ++p)
    for (int l = 0; l < 32; ++l)
      qs[32 * p + l] = static_cast<uint8_t>((q[64 * p + l] & 15) | (q[64 * p + 32 + l] & 15) << 4);
}

// 256 codes 0..31.
inline void pack_q5(const uint8_t* q, BlockQ5_K& b) {
  pack_nibbles(q, b.qs);
  std::memset(b.qh, 0, sizeof b.qh);
  for (int s = 0; s < 8; ++s)
    for (int l = 0; l < 32; ++l) b.qh[l] = static_cast<uint8_t>(b.qh[l] | (q[32 * s + l] >> 4) << s);
}

// 256 codes -32..31.
inline void pack_q6(const int8_t* q, BlockQ6_K& b) {
  for (int h = 0; h < 2; ++h)
    for (int l = 0; l < 32; ++l) {
      uint8_t v[4];
      for (int r = 0; r < 4; ++r) v[r] = static_cast<uint8_t>(q[128 * h + 32 * r + l] + 32);
      b.ql[64 * h + l] = static_cast<uint8_t>((v[0] & 15) | (v[2] & 15) << 4);
      b.ql[64 * h + 32 + l] = static_cast<uint8_t>((v[1] & 15) | (v[3] & 15) << 4);
      b.qh[32 * h + l] = static_cast<uint8_t>(v[0] >> 4 | (v[1] >> 4) << 2 | (v[2] >> 4) << 4 | (v[3] >> 4) << 6);
    }
}

// 256 codes 0..3.
inline void unpack_q2(const BlockQ2_K& b, uint8_t* q) {
  for (int i = 0; i < 256; ++i) q[i] = b.qs[32 * (i / 128) + i % 32] >> 2 * (i % 128 / 32) & 3;
}

inline void pack_q2(const uint8_t* q, BlockQ2_K& b) {
  for (int i = 0; i < 64; ++i) {
    const uint8_t* v = q + 128 * (i / 32) + i % 32;
    b.qs[i] = static_cast<uint8_t>(v[0] | v[32] << 2 | v[64] << 4 | v[96] << 6);
  }
}

// The 16 scales of Q3_K as they multiply: -32..31.
inline void unpack_q3_scales(const uint8_t* packed, int8_t* scale) {
  for (int j = 0; j < 16; ++j) {
    const int low = packed[j % 8] >> (j < 8 ? 0 : 4) & 15, high = packed[8 + j % 4] >> 2 * (j / 4) & 3;
    scale[j] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

inline void pack_q3_scales(const int8_t* scale, uint8_t* packed) {
  std::memset(packed, 0, 12);
  for (int j = 0; j < 16; ++j) {
    const int v = scale[j] + 32;
    packed[j % 8] = static_cast<uint8_t>(packed[j % 8] | (v & 15) << (j < 8 ? 0 : 4));
    packed[8 + j % 4] = static_cast<uint8_t>(packed[8 + j % 4] | (v >> 4) << 2 * (j / 4));
  }
}

// 256 codes -4..3.
inline void unpack_q3(const BlockQ3_K& b, int8_t* q) {
  for (int i = 0; i < 256; ++i) {
    const int h = i / 128, r = i % 128 / 32, l = i % 32;
    q[i] = static_cast<int8_t>(((b.qs[32 * h + l] >> 2 * r & 3) | (b.hmask[l] >> (4 * h + r) & 1) << 2) - 4);
  }
}

inline void pack_q3(const int8_t* q, BlockQ3_K& b) {
  std::memset(b.hmask, 0, sizeof b.hmask);
  std::memset(b.qs, 0, sizeof b.qs);
  for (int i = 0; i < 256; ++i) {
    const int h = i / 128, r = i % 128 / 32, l = i % 32, v = q[i] + 4;
    b.qs[32 * h + l] = static_cast<uint8_t>(b.qs[32 * h + l] | (v & 3) << 2 * r);
    b.hmask[l] = static_cast<uint8_t>(b.hmask[l] | (v >> 2) << (4 * h + r));
  }
}

}  // namespace ke
