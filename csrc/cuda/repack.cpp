#include "cuda/repack.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "quant/blocks.h"
#include "quant/k_layout.h"
#include "quant/requantize.h"
#include "quant/table_layout.h"

namespace ke::cuda {

namespace {

// Where one lane's block goes within a unit.
struct Lane {
  uint8_t* unit;
  int lane, chunks;
  uint8_t* chunk(int c) const { return unit + (c * kLanes + lane) * 16; }
  uint8_t* tail() const { return unit + chunks * kLanes * 16 + lane * 4; }
};

void put_half(uint8_t* to, uint16_t value) { std::memcpy(to, &value, sizeof value); }

// 32 codes of 4 bits.
void pack_nibbles(const uint8_t* codes, uint8_t* chunk) {
  for (int j = 0; j < 16; j++) chunk[j] = static_cast<uint8_t>((codes[j] & 15) | (codes[16 + j] & 15) << 4);
}

// The 8 scales and mins of Q4_K and Q5_K (quant/blocks.h).
void pack_scales(const uint8_t* packed, uint8_t* chunk) {
  for (int s = 0; s < 4; s++) {
    chunk[s] = packed[s] & 63;
    chunk[8 + s] = packed[4 + s] & 63;
    chunk[4 + s] = static_cast<uint8_t>((packed[8 + s] & 15) | packed[s] >> 6 << 4);
    chunk[12 + s] = static_cast<uint8_t>(packed[8 + s] >> 4 | packed[4 + s] >> 6 << 4);
  }
}

void pack_block(const BlockQ2_K& b, const Lane& to) {
  uint8_t codes[kBlock];
  unpack_q2(b, codes);
  for (int s = 0; s < 8; s++) {
    uint32_t words[2] = {0, 0};
    for (int l = 0; l < 32; l++) words[l / 16] |= uint32_t{codes[32 * s + l]} << (8 * (l % 4) + 2 * (l % 16 / 4));
    std::memcpy(to.chunk(s / 2) + s % 2 * 8, words, 8);
  }
  std::memcpy(to.chunk(4), b.scales, 16);
  put_half(to.tail(), b.d);
  put_half(to.tail() + 2, b.dmin);
}

void pack_block(const BlockQ3_K& b, const Lane& to) {
  int8_t codes[kBlock], scales[16];
  unpack_q3(b, codes);
  unpack_q3_scales(b.scales, scales);
  for (int s = 0; s < 8; s++) {
    uint32_t low[2] = {0, 0}, upper = 0;
    for (int l = 0; l < 32; l++) {
      const auto code = static_cast<uint32_t>(codes[32 * s + l] + 4);
      low[l / 16] |= (code & 3) << (8 * (l % 4) + 2 * (l % 16 / 4));
      upper |= code >> 2 << (8 * (l % 4) + l / 4);
    }
    std::memcpy(to.chunk(s / 2) + s % 2 * 8, low, 8);
    std::memcpy(to.chunk(4 + s / 4) + s % 4 * 4, &upper, 4);
  }
  std::memcpy(to.chunk(6), scales, 16);
  put_half(to.tail(), b.d);
  put_half(to.tail() + 2, 0);
}

void pack_block(const BlockQ4_K& b, const Lane& to) {
  for (int s = 0; s < 8; s++) {
    uint8_t codes[32];
    for (int l = 0; l < 32; l++) codes[l] = static_cast<uint8_t>(b.qs[32 * (s / 2) + l] >> (s % 2 * 4) & 15);
    pack_nibbles(codes, to.chunk(s));
  }
  pack_scales(b.scales, to.chunk(8));
  put_half(to.tail(), b.d);
  put_half(to.tail() + 2, b.dmin);
}

void pack_block(const BlockQ5_K& b, const Lane& to) {
  for (int s = 0; s < 8; s++) {
    uint8_t codes[32];
    uint32_t fifth = 0;
    for (int l = 0; l < 32; l++) {
      codes[l] = static_cast<uint8_t>(b.qs[32 * (s / 2) + l] >> (s % 2 * 4) & 15);
      fifth |= uint32_t{b.qh[l] >> s & 1u} << (8 * (l % 4) + l / 4);
    }
    pack_nibbles(codes, to.chunk(s));
    std::memcpy(to.chunk(8 + s / 4) + s % 4 * 4, &fifth, 4);
  }
  pack_scales(b.scales, to.chunk(10));
  put_half(to.tail(), b.d);
  put_half(to.tail() + 2, b.dmin);
}

void pack_block(const BlockQ6_K& b, const Lane& to) {
  for (int s = 0; s < 8; s++) {  // 32 values each: half s / 4, run s % 4 of the file's block
    const int h = s / 4, r = s % 4;
    uint8_t codes[32];
    uint32_t upper[2] = {0, 0};
    for (int l = 0; l < 32; l++) {
      codes[l] = static_cast<uint8_t>(b.ql[64 * h + 32 * (r % 2) + l] >> (r < 2 ? 0 : 4) & 15);
      upper[l / 16] |= uint32_t{b.qh[32 * h + l] >> (2 * r) & 3u} << (8 * (l % 4) + 2 * (l % 16 / 4));
    }
    pack_nibbles(codes, to.chunk(s));
    std::memcpy(to.chunk(8 + s / 2) + s % 2 * 8, upper, 8);
  }
  std::memcpy(to.chunk(12), b.scales, 16);
  put_half(to.tail(), b.d);
  put_half(to.tail() + 2, 0);
}

void pack_i8(const BlockQ6_K& b, const Lane& to) {
  uint8_t codes[kBlock];
  const float scale = requantize_i8(b, codes);
  for (int i = 0; i < kBlock; i++) to.chunk(i / 16)[i % 16] = static_cast<uint8_t>(codes[i] ^ 0x80);
  std::memcpy(to.tail(), &scale, sizeof scale);
}

// The eight blocks of 32 that make one block here.
void pack_block(const BlockQ8_0* b, const Lane& to) {
  for (int s = 0; s < 8; s++) {
    std::memcpy(to.chunk(2 * s), b[s].qs, 16);
    std::memcpy(to.chunk(2 * s + 1), b[s].qs + 16, 16);
    put_half(to.chunk(16) + 2 * s, b[s].d);
  }
}

void pack_block(const BlockQ5_0* b, const Lane& to) {
  for (int s = 0; s < 8; s++) {
    uint32_t fifth;
    std::memcpy(&fifth, b[s].qh, 4);
    for (int l = 0; l < 32; l++) {
      const int low = l < 16 ? b[s].qs[l] & 15 : b[s].qs[l - 16] >> 4;
      to.chunk(2 * s + l / 16)[l % 16] = static_cast<uint8_t>((low | static_cast<int>(fifth >> l & 1) << 4) - 16);
    }
    put_half(to.chunk(16) + 2 * s, b[s].d);
  }
}

void pack_block(const BlockQ4_0* b, const Lane& to) {
  for (int s = 0; s < 8; s++) {
    std::memcpy(to.chunk(s), b[s].qs, 16);
    put_half(to.chunk(8) + 2 * s, b[s].d);
  }
}

void pack_block(const BlockIQ4_NL* b, const Lane& to) {
  for (int s = 0; s < 8; s++) {
    std::memcpy(to.chunk(s), b[s].qs, 16);
    put_half(to.chunk(8) + 2 * s, b[s].d);
  }
}

void pack_block(const BlockIQ4_XS& b, const Lane& to) {
  for (int s = 0; s < 8; s++) std::memcpy(to.chunk(s), b.qs + 16 * s, 16);
  int8_t scales[8];
  unpack_iq4_scales(b, scales);
  std::memcpy(to.chunk(8), scales, 8);
  put_half(to.chunk(8) + 8, b.d);
}

}  // namespace

std::optional<Format> format_of(DType dtype, int64_t cols, MatmulUse use) {
  if (cols % kBlock != 0) return std::nullopt;
  switch (dtype) {
    case DType::Q2_K:
      return Format::Q2_K;
    case DType::Q3_K:
      return Format::Q3_K;
    case DType::Q4_K:
      return Format::Q4_K;
    case DType::Q5_K:
      return Format::Q5_K;
    case DType::Q6_K:
      return use == MatmulUse::LargeBatch ? Format::I8 : Format::Q6_K;
    case DType::Q5_0:
    case DType::Q8_0:
      return Format::Q8_0;
    case DType::Q4_0:
      return Format::Q4_0;
    case DType::IQ4_NL:
      return Format::IQ4_NL;
    case DType::IQ4_XS:
      return Format::IQ4_XS;
    default:
      return std::nullopt;
  }
}

void pack_panel(const Tensor& matrix, Format format, int64_t first_row, uint8_t* out) {
  const int64_t blocks = matrix.cols() / kBlock;
  const UnitGrid grid = unit_grid(blocks);
  const size_t row_bytes = dtype_bytes(matrix.dtype, matrix.cols()), block_bytes = dtype_bytes(matrix.dtype, kBlock);
  std::memset(out, 0, static_cast<size_t>(grid.steps) * unit_bytes(format));
  const int64_t rows = std::min<int64_t>(grid.rows, matrix.rows() - first_row);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t b = 0; b < blocks; b++) {
      const uint8_t* from = matrix.data + static_cast<size_t>(first_row + r) * row_bytes + b * block_bytes;
      const Lane to{out + b / grid.row_lanes * unit_bytes(format), static_cast<int>(b % grid.row_lanes * grid.rows + r),
                    format_layout(format).chunks};
      // The file's blocks are structs of bytes and 16-bit values; a copy makes no demands on their address.
      const auto stored = [&]<class Block>(Block& block) {
        std::memcpy(&block, from, sizeof block);
        if constexpr (std::is_array_v<Block>)
          pack_block(&block[0], to);
        else
          pack_block(block, to);
      };
      switch (matrix.dtype) {
        case DType::Q2_K: {
          BlockQ2_K block;
          stored(block);
          break;
        }
        case DType::Q3_K: {
          BlockQ3_K block;
          stored(block);
          break;
        }
        case DType::Q4_K: {
          BlockQ4_K block;
          stored(block);
          break;
        }
        case DType::Q5_K: {
          BlockQ5_K block;
          stored(block);
          break;
        }
        case DType::Q6_K: {
          BlockQ6_K block;
          if (format == Format::I8) {
            std::memcpy(&block, from, sizeof block);
            pack_i8(block, to);
          } else {
            stored(block);
          }
          break;
        }
        case DType::Q8_0: {
          BlockQ8_0 block[8];
          stored(block);
          break;
        }
        case DType::IQ4_NL: {
          BlockIQ4_NL block[8];
          stored(block);
          break;
        }
        case DType::IQ4_XS: {
          BlockIQ4_XS block;
          stored(block);
          break;
        }
        case DType::Q5_0: {
          BlockQ5_0 block[8];
          stored(block);
          break;
        }
        default: {
          BlockQ4_0 block[8];
          stored(block);
        }
      }
    }
  }
}

}  // namespace ke::cuda
