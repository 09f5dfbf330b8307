// How quantized weights lie in device memory. A "unit" is what one warp reads at once: 32 lanes, each with one block of
// 256 values of one row, so that a lane computes its block's product alone and every load of a warp is 512 bytes in a
// row. A unit holds R rows times S neighbouring blocks, R * S = 32: S is the largest of 8, 4, 2, 1 that
// divides the number of blocks of a row, so nothing is padded but the last rows. Lane = (block mod S) * R + row.
//
//   matrix  [panel of R rows][step of S blocks][unit]
//   unit    [chunk][lane][16 bytes], then where the format has them [lane][4 bytes]: d, dmin
//
//            chunks                                                                                     bytes/256
//            values
//   Q2_K     4 codes, 1 {16 scales in the low halves, mins in the high}, d and dmin                       84
//   Q3_K     4 low bits, 2 upper bits, 1 {16 scales}, d                                                 116
//   Q4_K     8 codes, 1 {8 scales, 8 mins}, d and dmin                                                  148
//   Q5_K     8 codes, 2 fifth bits, 1 {8 scales, 8 mins}, d and dmin                                    180
//   Q6_K     8 codes, 4 upper bits, 1 {16 scales}, d                                                    212
//   Q8_0     16 codes, 1 {8 float16 d}                                                                  272
//   Q4_0     8 codes, 1 {8 float16 d}                                                                   144
//   IQ4_NL   8 codes, 1 {8 float16 d}                                                                   144
//   IQ4_XS   8 codes, 1 {8 scales, d}                                                                   144
//
// Codes of 4 bits: chunk s has the 32 values of sub-block s, byte j value j in its low half and value 16 + j in its
// high half, so that dword t holds values 4 t .. and 16 + 4 t ..: lane t of a tensor core's quad (device.cuh). Of 8
// bits: chunks 2 s and 2 s + 1 have values 0..15 and 16..31. Fifth bits: dword s has value 4 t + i at bit 8 i + t,
// value 16 + 4 t + i at bit 8 i + 4 + t. Upper two bits of Q6_K: dwords 2 s and 2 s + 1 have values 4 t + i and 16 + 4
// t + i at bits 8 i + 2 t; so lie the codes of Q2_K and the low two bits of Q3_K, whose upper bits lie like fifth bits.
// I8 is no file's type: it is what Q6_K becomes for products with many rows (quant/requantize.h).
#pragma once
#include <stdint.h>

namespace ke::cuda {

constexpr int kBlock = 256;  // values
constexpr int kLanes = 32;

enum class Format : int { Q3_K, Q4_K, Q5_K, Q6_K, Q8_0, Q4_0, IQ4_NL, IQ4_XS, I8, Q2_K };

struct FormatLayout {
  int chunks;     // of 16 bytes per lane
  bool has_tail;  // 4 bytes per lane behind them
};

constexpr FormatLayout format_layout(Format f) {
  return f == Format::Q2_K   ? FormatLayout{5, true}
         : f == Format::Q3_K ? FormatLayout{7, true}
         : f == Format::Q4_K ? FormatLayout{9, true}
         : f == Format::Q5_K ? FormatLayout{11, true}
         : f == Format::Q6_K ? FormatLayout{13, true}
         : f == Format::Q8_0 ? FormatLayout{17, false}
         : f == Format::I8   ? FormatLayout{16, true}
                             : FormatLayout{9, false};
}
constexpr int64_t unit_bytes(Format f) {
  return kLanes * (16 * format_layout(f).chunks + (format_layout(f).has_tail ? 4 : 0));
}

// A matrix of `blocks` blocks per row.
struct UnitGrid {
  int row_lanes, rows, steps;  // S, R, units per panel
};
constexpr UnitGrid unit_grid(int64_t blocks) {
  const int row_lanes = blocks % 8 == 0 ? 8 : blocks % 4 == 0 ? 4 : blocks % 2 == 0 ? 2 : 1;
  return {row_lanes, kLanes / row_lanes, static_cast<int>(blocks / row_lanes)};
}
constexpr int64_t panel_count(int64_t rows, int64_t blocks) {
  const int r = unit_grid(blocks).rows;
  return (rows + r - 1) / r;
}
constexpr int64_t matrix_bytes(Format f, int64_t rows, int64_t blocks) {
  return panel_count(rows, blocks) * unit_grid(blocks).steps * unit_bytes(f);
}

}  // namespace ke::cuda
