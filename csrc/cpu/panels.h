// Layout of weights: panels of 16 output rows, repacked at upload (repack.cpp) and read by the kernels (formats.inl).
// As many panels as a tile kernel takes at once (P, an ISA's choice) form a group; a group is stored block of k by
// block, [block][its lines: panel 0 .. P - 1][its float scales: panel 0 .. P - 1], so that a product reads the whole
// matrix as one stream. Panels left over at the end are groups of one. A "line" is 64 bytes = 16 rows x 4 bytes, row r
// at byte 4 r: what one vector load takes. The bytes of a row keep the packing of the file's block (quant/blocks.h), so
// that repacking moves whole dwords; all but those of Q3_K, whose codes lie so that a mask is all that most of them
// need. Bits per weight stay the file's.
//
//              k    lines of a block                                                  float16 scales [16]
//   F32 F16 BF16 1  the 16 values (64 or 32 bytes)                                    -
//   Q8_0       32   8: codes + 128 (unsigned), line g = values 4 g .. 4 g + 3         d
//   Q4_0 Q4_1  32   4: line g = values 4 g .. (low halves), 16 + 4 g .. (high halves) d; Q4_1: m
//   Q5_0 Q5_1  32   4 as Q4_0; 1 of fifth bits: byte (row, j) bit g = value 4 g + j   d; Q5_1: m
//   Q2_K      256   16: codes [half][8] (bits 2 r: run r); 4: low halves: integer      d, dmin
//                   scales [16][16], high halves: mins, line j: dword of row r =
//                   sub-blocks 4 j ..
//   Q3_K      256   24: codes [half][3][4], line (t, g): values 4 g .. of sub-block   d
//                   2 t in bits 0..2, of 2 t + 1 in bits 4..6; bit 3: bit t of sub-block
//                   6, bit 7: bit t of sub-block 7; 4: integer scales [16][16]
//   Q4_K      256   32: [pair of sub-blocks][8] (low halves: even sub-block);         d, dmin
//                   2: integer scales [8][16]; 2: mins, dword of row r = sub-blocks 0..3, 4..7
//   Q5_K      256   32 as Q4_K; 8 of fifth bits (bit s: sub-block s); 2 + 2 as Q4_K   d, dmin
//   Q6_K      256   32: low halves [half][run % 2][8]; 16: upper bits [half][8]       d
//                   (bits 2 r: run r); 4: integer scales [16][16]
//   I8        256   64: codes + 128 as Q8_0                                           d as float32
//   IQ4_NL     32   4 as Q4_0                                                         d
//   IQ4_XS    256   32: [sub-block][4] as Q4_0; 2: integer scales [8][16]             d
#pragma once
#include <stdint.h>

#include "cpu/kernels.h"

namespace ke::cpu {

constexpr int kLine = 64;

struct PanelLayout {
  int values;  // k per block
  int lines;   // bytes of one panel's lines in a block
  int scales;  // bytes of one panel's float scales in a block
};

static constexpr PanelLayout panel_layout(PanelType type) {
  switch (type) {
    case PanelType::F32:
      return {1, 64, 0};
    case PanelType::F16:
    case PanelType::BF16:
      return {1, 32, 0};
    case PanelType::Q8_0:
      return {32, 8 * kLine, 32};
    case PanelType::Q4_0:
      return {32, 4 * kLine, 32};
    case PanelType::Q4_1:
      return {32, 4 * kLine, 64};
    case PanelType::Q5_0:
      return {32, 5 * kLine, 32};
    case PanelType::Q5_1:
      return {32, 5 * kLine, 64};
    case PanelType::Q3_K:
      return {256, 28 * kLine, 32};
    case PanelType::Q4_K:
      return {256, 36 * kLine, 64};
    case PanelType::Q5_K:
      return {256, 44 * kLine, 64};
    case PanelType::Q6_K:
      return {256, 52 * kLine, 32};
    case PanelType::I8:
      return {256, 64 * kLine, 64};
    case PanelType::IQ4_NL:
      return {32, 4 * kLine, 32};
    case PanelType::IQ4_XS:
      return {256, 34 * kLine, 32};
    case PanelType::Q2_K:
      return {256, 20 * kLine, 64};
  }
  return {1, 0, 0};
}

// Bytes of one panel; a group has P times as many.
static constexpr int64_t panel_bytes(PanelType type, int64_t cols) {
  const PanelLayout l = panel_layout(type);
  return cols / l.values * (l.lines + l.scales);
}

// One panel of a group: where its lines and scales of a block are.
struct PanelView {
  uint8_t* group;
  int panels;  // in the group
  int index;   // of this panel
  PanelLayout layout;

  KE_INLINE uint8_t* lines(int64_t block) const {
    return group + block * panels * (layout.lines + layout.scales) + index * layout.lines;
  }
  KE_INLINE uint8_t* scales(int64_t block) const {
    return group + block * panels * (layout.lines + layout.scales) + panels * layout.lines + index * layout.scales;
  }
};

// Panel `panel` of a matrix stored in groups of `group` panels.
static inline PanelView panel_view(PanelType type, uint8_t* matrix, int64_t cols, int64_t panel, int group) {
  return {matrix + panel / group * group * panel_bytes(type, cols), group, static_cast<int>(panel % group),
          panel_layout(type)};
}

}  // namespace ke::cpu
