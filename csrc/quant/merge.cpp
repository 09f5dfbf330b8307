#include "quant/merge.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace ke {

void add_low_rank(float* w, const float* b, const float* a, int64_t rows, int64_t cols, int64_t rank, float scale) {
  std::vector<float> sum(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; r++) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (int64_t k = 0; k < rank; k++) {
      const float factor = b[r * rank + k];
      const float* from = a + k * cols;
      for (int64_t c = 0; c < cols; c++) sum[static_cast<size_t>(c)] += factor * from[c];
    }
    float* to = w + r * cols;
    for (int64_t c = 0; c < cols; c++) to[c] += scale * sum[static_cast<size_t>(c)];
  }
}

namespace {

struct Taps {
  std::array<int64_t, 4> at;
  std::array<float, 4> weight;
};

// Of cell `index` along one side (torch UpSample.h, get_cubic_upsample_coefficients with A = -0.75).
Taps taps_of(int64_t index, int64_t from, int64_t to) {
  constexpr float a = -0.75f;
  const float scale = static_cast<float>(from) / static_cast<float>(to);
  const float place = scale * (static_cast<float>(index) + 0.5f) - 0.5f;
  const float cell = std::floor(place), t = place - cell;
  const auto near = [](float x) { return ((a + 2) * x - (a + 3)) * x * x + 1; };
  const auto far = [](float x) { return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a; };
  Taps out{{}, {far(t + 1), near(t), near(1 - t), far(2 - t)}};
  for (int64_t i = 0; i < 4; i++)
    out.at[static_cast<size_t>(i)] = std::clamp<int64_t>(static_cast<int64_t>(cell) - 1 + i, 0, from - 1);
  return out;
}

}  // namespace

void resize_grid(const float* in, float* out, int64_t from, int64_t to, int64_t width) {
  for (int64_t y = 0; y < to; y++) {
    const Taps rows = taps_of(y, from, to);
    for (int64_t x = 0; x < to; x++, out += width) {
      const Taps cols = taps_of(x, from, to);
      std::fill(out, out + width, 0.0f);
      for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++) {
          const float weight = rows.weight[i] * cols.weight[j];
          const float* cell = in + (rows.at[i] * from + cols.at[j]) * width;
          for (int64_t c = 0; c < width; c++) out[c] += weight * cell[c];
        }
    }
  }
}

}  // namespace ke
