// Layout of weight panels: 16 output rows, re-laid at upload (panels.cpp) and read by the kernels (unpack.inl).
// A "line" is 64 bytes = 16 rows x 4 bytes, row r at byte 4 r: what one vector load takes. The bytes of a row keep the
// packing of the file's block (quant/blocks.h), so that re-laying moves whole dwords; bits per weight stay the file's.
//
//   F32, F16, BF16   [k][16]
//   Q8_0             header, then per block of 32: 8 lines of codes + 128 (unsigned), line g = values 4 g .. 4 g + 3
//   Q4_0, Q4_1       header, then per block: 4 lines, line g = values 4 g.. (low halves) and 16 + 4 g.. (high halves)
//   Q5_0, Q5_1       header, then per block: 4 lines as Q4_0, 1 line of fifth bits: byte (row, j) bit g = value 4 g + j
//   Q4_K             per block of 256: 32 lines [pair of sub-blocks][8] (low halves: even sub-block), scales [8][16],
//                    2 lines of mins (sub-blocks 0..3, 4..7), d [16], dmin [16] as float16
//   Q5_K             32 lines as Q4_K, 8 lines of fifth bits (bit s: sub-block s), scales, mins, d, dmin as Q4_K
//   Q6_K             header, then per block of 256: 32 lines of low halves [half][run % 2][8], 16 lines of upper bits
//                    [half][8] (bits 2 r: run r), scales [16][16]
//   header           float16 d [blocks][16], for the types with an offset m [blocks][16] after it; padded to lines
#pragma once
#include <stdint.h>

#include "cpu/kernels.h"

namespace ke::cpu {

constexpr int kLine = 64;

struct PanelLayout {
  int values;         // k per block
  int block_bytes;    // of the 16 rows, without what the header holds
  int header_floats;  // float16 values per row and block in the header
};

static constexpr PanelLayout panel_layout(PanelType type) {
  switch (type) {
    case PanelType::F32:
      return {1, 64, 0};
    case PanelType::F16:
    case PanelType::BF16:
      return {1, 32, 0};
    case PanelType::Q8_0:
      return {32, 8 * kLine, 1};
    case PanelType::Q4_0:
      return {32, 4 * kLine, 1};
    case PanelType::Q4_1:
      return {32, 4 * kLine, 2};
    case PanelType::Q5_0:
      return {32, 5 * kLine, 1};
    case PanelType::Q5_1:
      return {32, 5 * kLine, 2};
    case PanelType::Q4_K:
      return {256, 32 * kLine + 8 * 16 + 2 * kLine + 2 * 32, 0};
    case PanelType::Q5_K:
      return {256, 40 * kLine + 8 * 16 + 2 * kLine + 2 * 32, 0};
    case PanelType::Q6_K:
      return {256, 48 * kLine + 16 * 16, 1};
  }
  return {1, 0, 0};
}

static constexpr int64_t panel_header_bytes(PanelType type, int64_t cols) {
  const PanelLayout l = panel_layout(type);
  return (cols / l.values * l.header_floats * kPanelRows * 2 + kLine - 1) / kLine * kLine;
}

static constexpr int64_t panel_bytes(PanelType type, int64_t cols) {
  const PanelLayout l = panel_layout(type);
  return panel_header_bytes(type, cols) + cols / l.values * l.block_bytes;
}

}  // namespace ke::cpu
