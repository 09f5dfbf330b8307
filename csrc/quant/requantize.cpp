#include "quant/requantize.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

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

// codes of v, whose largest magnitude is `top`.
template <class T>
static void codes_of(const T* v, float top, uint8_t* codes) {
  const float inverse = top == 0 ? 0.0f : 127.0f / top;
  constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves integers, ties to even
  for (int i = 0; i < kValues; ++i) {
    const float code = (static_cast<float>(v[i]) * inverse + round) - round;
    codes[i] = static_cast<uint8_t>(static_cast<int>(code) + 128);
  }
}

float requantize_i8(const BlockQ6_K& block, uint8_t* codes) {
  int16_t v[kValues];
  integers_of(block, v);
  int top = 0;
  for (int i = 0; i < kValues; ++i) top = std::max(top, std::abs(static_cast<int>(v[i])));
  codes_of(v, static_cast<float>(top), codes);
  return f16_to_f32(block.d) * (static_cast<float>(top) / 127.0f);
}

float quantize_i8(const float* values, uint8_t* codes) {
  float top = 0;
  bool finite = true;
  for (int i = 0; i < kValues; ++i) {
    top = std::max(top, std::fabs(values[i]));
    finite = finite && std::isfinite(values[i]);
  }
  if (!finite || top < 7.9e-31f) {  // so that 127 / top is finite
    std::fill_n(codes, kValues, static_cast<uint8_t>(128));
    return finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }
  codes_of(values, top, codes);
  return top / 127.0f;
}

}  // namespace ke
