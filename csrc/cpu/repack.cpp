// Repacks matrices from the file's row-major blocks into panels of 16 rows (layouts: panels.h).
#include "cpu/upload.h"

#include <algorithm>
#include <cstring>

#include "cpu/panels.h"
#include "quant/blocks.h"
#include "quant/k_layout.h"
#include "quant/table_layout.h"

namespace ke::cpu {

PanelType panel_type(DType dtype, bool to_i8) {
  switch (dtype) {
    case DType::F32:
      return to_i8 ? PanelType::I8 : PanelType::F32;
    case DType::F16:
      return PanelType::F16;
    case DType::BF16:
      return PanelType::BF16;
    case DType::Q8_0:
      return to_i8 ? PanelType::I8 : PanelType::Q8_0;
    case DType::Q4_0:
      return to_i8 ? PanelType::I8 : PanelType::Q4_0;
    case DType::Q4_1:
      return to_i8 ? PanelType::I8 : PanelType::Q4_1;
    case DType::Q5_0:
      return to_i8 ? PanelType::I8 : PanelType::Q5_0;
    case DType::Q5_1:
      return to_i8 ? PanelType::I8 : PanelType::Q5_1;
    case DType::Q2_K:
      return PanelType::Q2_K;
    case DType::Q3_K:
      return PanelType::Q3_K;
    case DType::Q4_K:
      return PanelType::Q4_K;
    case DType::Q5_K:
      return PanelType::Q5_K;
    case DType::Q6_K:
      return to_i8 ? PanelType::I8 : PanelType::Q6_K;
    case DType::IQ4_NL:
      return to_i8 ? PanelType::I8 : PanelType::IQ4_NL;
    case DType::IQ4_XS:
      return PanelType::IQ4_XS;
  }
  return PanelType::F32;
}

namespace {

// Dword g of row r goes to line g, byte 4 r.
void spread(const uint8_t* from, int dwords, int row, uint8_t* lines) {
  for (int g = 0; g < dwords; ++g) std::memcpy(lines + g * kLine + row * 4, from + g * 4, 4);
}

// Fifth bits: bit 4 g + j of the block's dword -> bit g of byte j.
void spread_fifth_bits(const uint8_t* qh, int row, uint8_t* line) {
  for (int j = 0; j < 4; ++j) {
    unsigned byte = 0;
    for (int g = 0; g < 8; ++g) {
      const int bit = 4 * g + j;
      byte |= (qh[bit / 8] >> bit % 8 & 1u) << g;
    }
    line[row * 4 + j] = static_cast<uint8_t>(byte);
  }
}

template <class Block>
const Block* row_blocks(const PanelSource& s, int row) {
  return reinterpret_cast<const Block*>(s.rows + row * s.row_bytes);
}

void put_scale(uint8_t* scales, int which, int row, uint16_t value) {
  std::memcpy(scales + (which * kPanelRows + row) * 2, &value, 2);
}

// Calls put(block, row, lines, scales) for every block of every row.
template <class Block, class Put>
void pack_blocks(const PanelSource& s, const PanelView& panel, Put put) {
  const int64_t blocks = s.cols / panel.layout.values;
  for (int row = 0; row < s.count; ++row) {
    const Block* b = row_blocks<Block>(s, row);
    for (int64_t i = 0; i < blocks; ++i) put(b[i], row, panel.lines(i), panel.scales(i));
  }
}

template <class Block>
void pack_four_bits(const PanelSource& s, const PanelView& panel) {
  pack_blocks<Block>(s, panel, [](const Block& b, int row, uint8_t* lines, uint8_t* scales) {
    spread(b.qs, 4, row, lines);
    if constexpr (requires { b.qh; }) spread_fifth_bits(b.qh, row, lines + 4 * kLine);
    put_scale(scales, 0, row, b.d);
    if constexpr (requires { b.m; }) put_scale(scales, 1, row, b.m);
  });
}

void pack_q8_0(const PanelSource& s, const PanelView& panel) {
  pack_blocks<BlockQ8_0>(s, panel, [](const BlockQ8_0& b, int row, uint8_t* lines, uint8_t* scales) {
    uint8_t codes[32];
    for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(b.qs[i] ^ 0x80);
    spread(codes, 8, row, lines);
    put_scale(scales, 0, row, b.d);
  });
}

// Q4_K, Q5_K.
template <class Block>
void pack_affine(const PanelSource& s, const PanelView& panel) {
  pack_blocks<Block>(s, panel, [](const Block& b, int row, uint8_t* lines, uint8_t* scales) {
    spread(b.qs, 32, row, lines);
    lines += 32 * kLine;
    if constexpr (requires { b.qh; }) {
      spread(b.qh, 8, row, lines);
      lines += 8 * kLine;
    }
    uint8_t* mins = lines + 2 * kLine;
    const uint8_t* p = b.scales;  // the packing of 6-bit values is described in blocks.h
    for (int j = 0; j < 4; ++j) {
      lines[j * 16 + row] = p[j] & 63;
      lines[(4 + j) * 16 + row] = static_cast<uint8_t>((p[8 + j] & 15) | (p[j] >> 6) << 4);
      mins[row * 4 + j] = p[4 + j] & 63;
      mins[kLine + row * 4 + j] = static_cast<uint8_t>(p[8 + j] >> 4 | (p[4 + j] >> 6) << 4);
    }
    put_scale(scales, 0, row, b.d);
    put_scale(scales, 1, row, b.dmin);
  });
}

void pack_q6_k(const PanelSource& s, const PanelView& panel) {
  pack_blocks<BlockQ6_K>(s, panel, [](const BlockQ6_K& b, int row, uint8_t* lines, uint8_t* scales) {
    spread(b.ql, 32, row, lines);
    spread(b.qh, 16, row, lines + 32 * kLine);
    for (int j = 0; j < 16; ++j) lines[48 * kLine + j * 16 + row] = static_cast<uint8_t>(b.scales[j]);
    put_scale(scales, 0, row, b.d);
  });
}

void pack_q2_k(const PanelSource& s, const PanelView& panel) {
  pack_blocks<BlockQ2_K>(s, panel, [](const BlockQ2_K& b, int row, uint8_t* lines, uint8_t* scales) {
    spread(b.qs, 16, row, lines);
    uint8_t* both = lines + 16 * kLine;  // a byte's halves are of different rows
    for (int j = 0; j < 16; ++j) {
      uint8_t& scale = both[j * 16 + row];
      scale = static_cast<uint8_t>((scale & 0xf0) | (b.scales[j] & 15));
      uint8_t& min = both[j / 4 * kLine + row * 4 + j % 4];
      min = static_cast<uint8_t>((min & 15) | (b.scales[j] & 0xf0));
    }
    put_scale(scales, 0, row, b.d);
    put_scale(scales, 1, row, b.dmin);
  });
}

constexpr uint32_t kEachByte = 0x01010101;

// Codes 4 g .. 4 g + 3 of sub-block s of a half, a byte each.
uint32_t four_q3_codes(const BlockQ3_K& b, int half, int s, int g) {
  const int run = s / 2, at = s % 2 * 16 + 4 * g;
  uint32_t low, upper;
  std::memcpy(&low, b.qs + 32 * half + at, 4);
  std::memcpy(&upper, b.hmask + at, 4);
  return (low >> 2 * run & 3 * kEachByte) | (upper >> (4 * half + run) & kEachByte) << 2;
}

void pack_q3_k(const PanelSource& s, const PanelView& panel) {
  pack_blocks<BlockQ3_K>(s, panel, [](const BlockQ3_K& b, int row, uint8_t* lines, uint8_t* scales) {
    for (int half = 0; half < 2; ++half)
      for (int g = 0; g < 4; ++g) {
        uint32_t q[8];  // codes of the half's sub-blocks
        for (int s = 0; s < 8; ++s) q[s] = four_q3_codes(b, half, s, g);
        for (int t = 0; t < 3; ++t) {
          const uint32_t top = (q[6] >> t & kEachByte) << 3 | (q[7] >> t & kEachByte) << 7;
          const uint32_t dword = q[2 * t] | q[2 * t + 1] << 4 | top;
          std::memcpy(lines + (half * 12 + t * 4 + g) * kLine + row * 4, &dword, 4);
        }
      }
    int8_t scale[16];
    unpack_q3_scales(b.scales, scale);
    for (int j = 0; j < 16; ++j) lines[24 * kLine + j * 16 + row] = static_cast<uint8_t>(scale[j]);
    put_scale(scales, 0, row, b.d);
  });
}

void pack_iq4_xs(const PanelSource& s, const PanelView& panel) {
  pack_blocks<BlockIQ4_XS>(s, panel, [](const BlockIQ4_XS& b, int row, uint8_t* lines, uint8_t* scales) {
    spread(b.qs, 32, row, lines);
    int8_t scale[8];
    unpack_iq4_scales(b, scale);
    for (int j = 0; j < 8; ++j) lines[32 * kLine + j * 16 + row] = static_cast<uint8_t>(scale[j]);
    put_scale(scales, 0, row, b.d);
  });
}

template <class Value>
void pack_values(const PanelSource& s, const PanelView& panel) {
  const int64_t step = panel.lines(1) - panel.lines(0);
  for (int row = 0; row < s.count; ++row) {
    const uint8_t* from = s.rows + row * s.row_bytes;
    uint8_t* to = panel.lines(0) + row * sizeof(Value);
    for (int64_t k = 0; k < s.cols; ++k) std::memcpy(to + k * step, from + k * sizeof(Value), sizeof(Value));
  }
}

}  // namespace

void pack_panel(PanelType type, const PanelSource& s, const PanelView& panel) {
  switch (type) {
    case PanelType::F32:
      return pack_values<uint32_t>(s, panel);
    case PanelType::F16:
    case PanelType::BF16:
      return pack_values<uint16_t>(s, panel);
    case PanelType::Q8_0:
      return pack_q8_0(s, panel);
    case PanelType::Q4_0:
      return pack_four_bits<BlockQ4_0>(s, panel);
    case PanelType::Q4_1:
      return pack_four_bits<BlockQ4_1>(s, panel);
    case PanelType::Q5_0:
      return pack_four_bits<BlockQ5_0>(s, panel);
    case PanelType::Q5_1:
      return pack_four_bits<BlockQ5_1>(s, panel);
    case PanelType::Q3_K:
      return pack_q3_k(s, panel);
    case PanelType::Q4_K:
      return pack_affine<BlockQ4_K>(s, panel);
    case PanelType::Q5_K:
      return pack_affine<BlockQ5_K>(s, panel);
    case PanelType::Q6_K:
      return pack_q6_k(s, panel);
    case PanelType::I8:
      return;  // pack_i8
    case PanelType::IQ4_NL:
      return pack_four_bits<BlockIQ4_NL>(s, panel);
    case PanelType::IQ4_XS:
      return pack_iq4_xs(s, panel);
    case PanelType::Q2_K:
      return pack_q2_k(s, panel);
  }
}

}  // namespace ke::cpu
