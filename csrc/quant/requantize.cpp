#include "quant/requantize.h"

#include <algorithm>
#include <cstdlib>

#include "quant/codec.h"

namespace ke {

constexpr int kValues = 256;

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

float requantize_i8(const BlockQ6_K& block, uint8_t* codes) {
  int16_t v[kValues];
  integers_of(block, v);
  int top = 0;
  for (int i = 0; i < kValues; ++i) top = std::max(top, std::abs(static_cast<int>(v[i])));
  const float inverse = top == 0 ? 0.0f : 127.0f / static_cast<float>(top);
  constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves integers, ties to even
  for (int i = 0; i < kValues; ++i) {
    const float code = (static_cast<float>(v[i]) * inverse + round) - round;
    codes[i] = static_cast<uint8_t>(static_cast<int>(code) + 128);
  }
  return f16_to_f32(block.d) * (static_cast<float>(top) / 127.0f);
}

}  // namespace ke
