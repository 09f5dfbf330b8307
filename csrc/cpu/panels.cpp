// Re-lays matrices from the file's row-major blocks into panels of 16 rows (layouts: panels.h).
#include "cpu/upload.h"

#include <algorithm>
#include <cstring>

#include "cpu/panels.h"
#include "quant/blocks.h"

namespace ke::cpu {

PanelType panel_type(DType dtype) {
  switch (dtype) {
    case DType::F32:
      return PanelType::F32;
    case DType::F16:
      return PanelType::F16;
    case DType::BF16:
      return PanelType::BF16;
    case DType::Q8_0:
      return PanelType::Q8_0;
    case DType::Q4_0:
      return PanelType::Q4_0;
    case DType::Q4_1:
      return PanelType::Q4_1;
    case DType::Q5_0:
      return PanelType::Q5_0;
    case DType::Q5_1:
      return PanelType::Q5_1;
    case DType::Q4_K:
      return PanelType::Q4_K;
    case DType::Q5_K:
      return PanelType::Q5_K;
    case DType::Q6_K:
      return PanelType::Q6_K;
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

void put_header(uint8_t* panel, int64_t blocks, int which, int64_t block, int row, uint16_t value) {
  std::memcpy(panel + ((which * blocks + block) * kPanelRows + row) * 2, &value, 2);
}

// The types with blocks of 32 values: put(block, row, its lines).
template <class Block, class Put>
void lay_blocks32(const PanelSource& s, PanelType type, uint8_t* panel, Put put) {
  const PanelLayout layout = panel_layout(type);
  const int64_t blocks = s.cols / layout.values;
  uint8_t* lines = panel + panel_header_bytes(type, s.cols);
  for (int row = 0; row < s.count; ++row) {
    const Block* b = row_blocks<Block>(s, row);
    for (int64_t i = 0; i < blocks; ++i) {
      put_header(panel, blocks, 0, i, row, b[i].d);
      if constexpr (requires { b->m; }) put_header(panel, blocks, 1, i, row, b[i].m);
      put(b[i], row, lines + i * layout.block_bytes);
    }
  }
}

// Q4_K, Q5_K: the scales, mins, d and dmin that follow the lines.
template <class Block>
void put_scales(const Block& b, int row, uint8_t* to) {
  for (int j = 0; j < 4; ++j) {  // the packing of 6-bit values is described in blocks.h
    const uint8_t* p = b.scales;
    to[j * 16 + row] = p[j] & 63;
    to[(4 + j) * 16 + row] = static_cast<uint8_t>((p[8 + j] & 15) | (p[j] >> 6) << 4);
    uint8_t* mins = to + 8 * 16;
    mins[row * 4 + j] = p[4 + j] & 63;
    mins[kLine + row * 4 + j] = static_cast<uint8_t>(p[8 + j] >> 4 | (p[4 + j] >> 6) << 4);
  }
  std::memcpy(to + 8 * 16 + 2 * kLine + row * 2, &b.d, 2);
  std::memcpy(to + 8 * 16 + 2 * kLine + 32 + row * 2, &b.dmin, 2);
}

void lay_q8_0(const PanelSource& s, uint8_t* panel) {
  lay_blocks32<BlockQ8_0>(s, PanelType::Q8_0, panel, [](const BlockQ8_0& b, int row, uint8_t* lines) {
    uint8_t codes[32];
    for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(b.qs[i] ^ 0x80);
    spread(codes, 8, row, lines);
  });
  // The unused rows of a last panel have scale 0 already; their codes do not matter.
}

template <class Block>
void lay_four_bits(const PanelSource& s, PanelType type, uint8_t* panel) {
  lay_blocks32<Block>(s, type, panel, [](const Block& b, int row, uint8_t* lines) { spread(b.qs, 4, row, lines); });
}

template <class Block>
void lay_five_bits(const PanelSource& s, PanelType type, uint8_t* panel) {
  lay_blocks32<Block>(s, type, panel, [](const Block& b, int row, uint8_t* lines) {
    spread(b.qs, 4, row, lines);
    spread_fifth_bits(b.qh, row, lines + 4 * kLine);
  });
}

void lay_q4_k(const PanelSource& s, uint8_t* panel) {
  const int64_t bytes = panel_layout(PanelType::Q4_K).block_bytes;
  for (int row = 0; row < s.count; ++row) {
    const BlockQ4_K* b = row_blocks<BlockQ4_K>(s, row);
    for (int64_t i = 0; i < s.cols / 256; ++i) {
      spread(b[i].qs, 32, row, panel + i * bytes);
      put_scales(b[i], row, panel + i * bytes + 32 * kLine);
    }
  }
}

void lay_q5_k(const PanelSource& s, uint8_t* panel) {
  const int64_t bytes = panel_layout(PanelType::Q5_K).block_bytes;
  for (int row = 0; row < s.count; ++row) {
    const BlockQ5_K* b = row_blocks<BlockQ5_K>(s, row);
    for (int64_t i = 0; i < s.cols / 256; ++i) {
      spread(b[i].qs, 32, row, panel + i * bytes);
      spread(b[i].qh, 8, row, panel + i * bytes + 32 * kLine);
      put_scales(b[i], row, panel + i * bytes + 40 * kLine);
    }
  }
}

void lay_q6_k(const PanelSource& s, uint8_t* panel) {
  const int64_t bytes = panel_layout(PanelType::Q6_K).block_bytes, blocks = s.cols / 256;
  uint8_t* lines = panel + panel_header_bytes(PanelType::Q6_K, s.cols);
  for (int row = 0; row < s.count; ++row) {
    const BlockQ6_K* b = row_blocks<BlockQ6_K>(s, row);
    for (int64_t i = 0; i < blocks; ++i) {
      put_header(panel, blocks, 0, i, row, b[i].d);
      spread(b[i].ql, 32, row, lines + i * bytes);
      spread(b[i].qh, 16, row, lines + i * bytes + 32 * kLine);
      for (int j = 0; j < 16; ++j) lines[i * bytes + 48 * kLine + j * 16 + row] = static_cast<uint8_t>(b[i].scales[j]);
    }
  }
}

template <class Value>
void lay_values(const PanelSource& s, uint8_t* panel) {
  Value* to = reinterpret_cast<Value*>(panel);
  for (int row = 0; row < s.count; ++row) {
    const uint8_t* from = s.rows + row * s.row_bytes;
    for (int64_t k = 0; k < s.cols; ++k) std::memcpy(to + k * 16 + row, from + k * sizeof(Value), sizeof(Value));
  }
}

}  // namespace

void lay_panel(PanelType type, const PanelSource& s, uint8_t* panel) {
  switch (type) {
    case PanelType::F32:
      return lay_values<uint32_t>(s, panel);
    case PanelType::F16:
    case PanelType::BF16:
      return lay_values<uint16_t>(s, panel);
    case PanelType::Q8_0:
      return lay_q8_0(s, panel);
    case PanelType::Q4_0:
      return lay_four_bits<BlockQ4_0>(s, type, panel);
    case PanelType::Q4_1:
      return lay_four_bits<BlockQ4_1>(s, type, panel);
    case PanelType::Q5_0:
      return lay_five_bits<BlockQ5_0>(s, type, panel);
    case PanelType::Q5_1:
      return lay_five_bits<BlockQ5_1>(s, type, panel);
    case PanelType::Q4_K:
      return lay_q4_k(s, panel);
    case PanelType::Q5_K:
      return lay_q5_k(s, panel);
    case PanelType::Q6_K:
      return lay_q6_k(s, panel);
  }
}

}  // namespace ke::cpu
