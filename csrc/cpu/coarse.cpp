// Weights of 6 bits that meet many rows at once, as codes of 8 bits with one scale per 256 values. Q6_K multiplies sums
// by an integer scale every 16 values, on the ports that the products need too: at most 80 % of the products' peak;
// with one float scale per block of activations nothing is left between the products. A value is off by at most 1/254
// of its block's largest, about 0.4 of Q6_K's own error for Gaussian weights (docs/quantization.md).
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "cpu/panels.h"
#include "cpu/upload.h"
#include "quant/blocks.h"
#include "quant/codec.h"

namespace ke::cpu {

// value / d of every value of a block: scale * (code - 32), |value / d| <= 128 * 32.
static void integers_of(const BlockQ6_K& b, int16_t* v) {
  for (int half = 0; half < 2; ++half)
    for (int run = 0; run < 4; ++run)
      for (int part = 0; part < 2; ++part) {
        const uint8_t* low = b.ql + 64 * half + 32 * (run % 2) + 16 * part;
        const uint8_t* high = b.qh + 32 * half + 16 * part;
        const int scale = b.scales[8 * half + 2 * run + part], shift = run < 2 ? 0 : 4;
        int16_t* to = v + 128 * half + 32 * run + 16 * part;
        for (int l = 0; l < 16; ++l)
          to[l] = static_cast<int16_t>(scale * (((low[l] >> shift & 15) | (high[l] >> 2 * run & 3) << 4) - 32));
      }
}

// Codes + 128 and the scale with which they come back to v * d.
static float coarse_codes(const int16_t* v, float d, uint8_t* codes) {
  int top = 0;
  for (int i = 0; i < kBlock; ++i) top = std::max(top, std::abs(static_cast<int>(v[i])));
  const float inverse = top == 0 ? 0.0f : 127.0f / static_cast<float>(top);
  constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves integers, ties to even
  for (int i = 0; i < kBlock; ++i) {
    const float code = (static_cast<float>(v[i]) * inverse + round) - round;
    codes[i] = static_cast<uint8_t>(static_cast<int>(code) + 128);
  }
  return d * (static_cast<float>(top) / 127.0f);
}

void lay_coarse(const PanelSource& s, const PanelView& panel) {
  for (int row = 0; row < s.count; ++row) {
    const auto* blocks = reinterpret_cast<const BlockQ6_K*>(s.rows + row * s.row_bytes);
    for (int64_t i = 0; i < s.cols / kBlock; ++i) {
      int16_t values[kBlock];
      uint8_t codes[kBlock];
      integers_of(blocks[i], values);
      const float scale = coarse_codes(values, f16_to_f32(blocks[i].d), codes);
      uint8_t* lines = panel.lines(i);
      for (int g = 0; g < kBlock / 4; ++g) std::memcpy(lines + g * kLine + row * 4, codes + 4 * g, 4);
      std::memcpy(panel.scales(i) + row * sizeof(float), &scale, sizeof scale);
    }
  }
}

}  // namespace ke::cpu
