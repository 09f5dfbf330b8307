// Matrices requantized to 8 bits (quant/requantize.h), in panels.
#include <algorithm>
#include <cstring>

#include "cpu/panels.h"
#include "cpu/upload.h"
#include "quant/codec.h"
#include "quant/requantize.h"

namespace ke::cpu {

void pack_i8(DType dtype, const PanelSource& s, const PanelView& panel) {
  for (int row = 0; row < s.count; ++row) {
    const uint8_t* from = s.rows + row * s.row_bytes;
    for (int64_t i = 0; i * kBlock < s.cols; ++i) {
      uint8_t codes[kBlock];
      float scale;
      if (dtype == DType::Q6_K) {
        scale = requantize_i8(reinterpret_cast<const BlockQ6_K*>(from)[i], codes);
      } else {
        float values[kBlock] = {};
        const int64_t n = std::min<int64_t>(kBlock, s.cols - i * kBlock);
        decode(dtype, from + dtype_bytes(dtype, i * kBlock), values, n);
        scale = quantize_i8(values, codes);
      }
      uint8_t* lines = panel.lines(i);
      for (int g = 0; g < kBlock / 4; ++g) std::memcpy(lines + g * kLine + row * 4, codes + 4 * g, 4);
      std::memcpy(panel.scales(i) + row * sizeof(float), &scale, sizeof scale);
    }
  }
}

}  // namespace ke::cpu
