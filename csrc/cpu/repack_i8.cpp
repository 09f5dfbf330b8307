// Q6_K requantized to 8 bits (quant/requantize.h), in panels.
#include <cstring>

#include "cpu/panels.h"
#include "cpu/upload.h"
#include "quant/requantize.h"

namespace ke::cpu {

void pack_i8(const PanelSource& s, const PanelView& panel) {
  for (int row = 0; row < s.count; ++row) {
    const auto* blocks = reinterpret_cast<const BlockQ6_K*>(s.rows + row * s.row_bytes);
    for (int64_t i = 0; i < s.cols / kBlock; ++i) {
      uint8_t codes[kBlock];
      const float scale = requantize_i8(blocks[i], codes);
      uint8_t* lines = panel.lines(i);
      for (int g = 0; g < kBlock / 4; ++g) std::memcpy(lines + g * kLine + row * 4, codes + 4 * g, 4);
      std::memcpy(panel.scales(i) + row * sizeof(float), &scale, sizeof scale);
    }
  }
}

}  // namespace ke::cpu
