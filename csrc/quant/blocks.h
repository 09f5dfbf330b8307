// Byte layout of every block-quantized storage type: the one place where these layouts are written down.
// Only what C++, CUDA and the Metal language share is used here: structs of fixed-width integers, no functions.
// All fields are little endian; float16 and bfloat16 values are kept as their 16 bits. Blocks follow each other
// without padding, and a row of a matrix is a whole number of blocks. `q` below is a stored code, `x` a decoded value.
#pragma once
#ifndef __METAL_VERSION__
#include <stdint.h>
#endif

namespace ke {

// Q8_0: 32 values of 8 bits, 8.5 bits per value. x[i] = d * q[i], q in -128..127 (encoders use -127..127).
struct BlockQ8_0 {
  uint16_t d;     // float16
  int8_t qs[32];  // value i
};
static_assert(sizeof(BlockQ8_0) == 34, "Q8_0 is 34 bytes");

// Q4_0: 32 values of 4 bits, 4.5 bits per value. x[i] = d * (q[i] - 8), q in 0..15.
// Byte j holds value j in its low half and value j + 16 in its high half.
struct BlockQ4_0 {
  uint16_t d;  // float16, may be negative
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18, "Q4_0 is 18 bytes");

// Q4_1: 32 values of 4 bits with an offset, 5 bits per value. x[i] = d * q[i] + m, q in 0..15, packed as in Q4_0.
struct BlockQ4_1 {
  uint16_t d;  // float16
  uint16_t m;  // float16
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20, "Q4_1 is 20 bytes");

// Q5_0: 32 values of 5 bits, 5.5 bits per value. x[i] = d * (q[i] - 16), q in 0..31. The low 4 bits are packed as in
// Q4_0; bit i of qh (a little-endian uint32 in four bytes) is the fifth bit of value i.
struct BlockQ5_0 {
  uint16_t d;  // float16, may be negative
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22, "Q5_0 is 22 bytes");

// Q5_1: 32 values of 5 bits with an offset, 6 bits per value. x[i] = d * q[i] + m, q in 0..31, packed as in Q5_0.
struct BlockQ5_1 {
  uint16_t d;  // float16
  uint16_t m;  // float16
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24, "Q5_1 is 24 bytes");

// Q2_K: 256 values of 2 bits in 16 sub-blocks of 16, 2.625 bits per value.
// x = (d * scale[s]) * q - (dmin * min[s]), q in 0..3, s = i / 16; scale and min are 4-bit unsigned: the low and the
// high half of scales[s]. The two halves of 128 values (h = 0, 1) are four runs of 32 values each (r = 0..3): value
// 32 r + l is in qs[32 h + l] at bit 2 r.
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d;     // float16
  uint16_t dmin;  // float16
};
static_assert(sizeof(BlockQ2_K) == 84, "Q2_K is 84 bytes");

// Q3_K: 256 values of 3 bits in 16 sub-blocks of 16, 3.4375 bits per value. x = (d * (scale[s] - 32)) * (q - 4), q in
// 0..7, s = i / 16; scale is 6-bit unsigned. The two halves of 128 values (h = 0, 1) are four runs of 32 values each
// (r = 0..3): value 32 r + l has its low 2 bits in qs[32 h + l] at bit 2 r, and its upper bit in hmask[l] at bit 4 h +
// r. `scales`: byte j (j < 8) holds the low 4 bits of scale[j] (low half) and of scale[8 + j] (high half); byte 8 + j
// (j < 4) holds the upper 2 bits of scale[4 r + j] at bit 2 r.
struct BlockQ3_K {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;  // float16
};
static_assert(sizeof(BlockQ3_K) == 110, "Q3_K is 110 bytes");

// Q4_K: 256 values of 4 bits in 8 sub-blocks of 32, 4.5 bits per value.
// x = (d * scale[s]) * q - (dmin * min[s]), q in 0..15, s = i / 32; scale and min are 6-bit unsigned.
// `scales` packs them: byte j (j < 4) holds scale[j] in its low 6 bits, byte 4 + j holds min[j]; byte 8 + j holds the
// low 4 bits of scale[4 + j] (low half) and of min[4 + j] (high half), whose upper 2 bits are the top 2 bits of bytes j
// and 4 + j. `qs` goes by pairs of sub-blocks: byte 32 p + l holds value l of sub-block 2 p (low half) and 2 p + 1
// (high half).
struct BlockQ4_K {
  uint16_t d;     // float16
  uint16_t dmin;  // float16
  uint8_t scales[12];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_K) == 144, "Q4_K is 144 bytes");

// Q5_K: 256 values of 5 bits in 8 sub-blocks of 32, 5.5 bits per value. As Q4_K with q in 0..31:
// bit s of qh[l] is the fifth bit of value l of sub-block s.
struct BlockQ5_K {
  uint16_t d;     // float16
  uint16_t dmin;  // float16
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176, "Q5_K is 176 bytes");

// Q6_K: 256 values of 6 bits in 16 sub-blocks of 16, 6.5625 bits per value. x = (d * scale[s]) * (q - 32), q in 0..63,
// s = i / 16, scale is 8-bit signed. The two halves of 128 values (h = 0, 1) are packed alike, each as four runs of 32
// values (r = 0..3): value 32 r + l has its low 4 bits in ql[64 h + 32 (r % 2) + l], low half for r < 2, else high
// half, and its upper 2 bits in qh[32 h + l] at bit 2 r.
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;  // float16
};
static_assert(sizeof(BlockQ6_K) == 210, "Q6_K is 210 bytes");

// The values that the 4-bit codes of IQ4_NL and IQ4_XS stand for: closer together around zero, where most weights are.
#define KE_TABLE_VALUES -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113

// IQ4_NL: 32 values of 4 bits, 4.5 bits per value. x[i] = d * table[q[i]], q in 0..15, packed as in Q4_0.
struct BlockIQ4_NL {
  uint16_t d;  // float16, may be negative
  uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18, "IQ4_NL is 18 bytes");

// IQ4_XS: 256 values of 4 bits in 8 sub-blocks of 32, 4.25 bits per value. x = (d * (scale[s] - 32)) * table[q], q in
// 0..15, s = i / 32; scale is 6-bit unsigned: its low 4 bits are in scales_l[s / 2] (low half for even s), its upper 2
// bits in scales_h (a little-endian uint16 in two bytes) at bit 2 s. Sub-block s has its 32 codes in the 16 bytes from
// qs[16 s] on, packed as in Q4_0.
struct BlockIQ4_XS {
  uint16_t d;  // float16
  uint8_t scales_h[2];
  uint8_t scales_l[4];
  uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136, "IQ4_XS is 136 bytes");

}  // namespace ke
