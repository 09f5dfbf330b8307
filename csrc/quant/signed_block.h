// 256 values with one float16 scale, integer scales of sub-blocks, and signed codes without an offset: Q3_K, Q6_K,
// IQ4_XS.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "quant/scale_search.h"
#include "quant/stored_scales.h"

namespace ke {

// x ~ d scale[s] nearest(q): given the best scale of every sub-block on its own, takes the block's d so that all are in
// reach, chooses every integer scale among its neighbours by the error that it really gives, then finds the best d for
// the codes by least squares, and chooses again; keeps what was best.
// Codes: `values` of a sub-block; search(columns), the best scale; error(columns, scale); nearest(x).
template <class Codes>
struct SignedBlock {
  static constexpr int values = Codes::values, groups = 64 / values;  // of four sub-blocks
  static constexpr int rounds = 2;                                    // of refining
  const Codes codes_of;
  Columns<values> columns[groups];
  const F4 low_scale, high_scale;  // integers
  uint16_t d_bits = 0;
  F4 scale[groups];
  float error = std::numeric_limits<float>::infinity();

  // half_scales: how many integer scales there are below zero.
  SignedBlock(const float* in, const float* importance, int half_scales, const Codes& codes)
      : codes_of(codes),
        low_scale(splat(static_cast<float>(-half_scales))),
        high_scale(splat(static_cast<float>(half_scales - 1))) {
    F4 exact[groups];
    float top = 0;  // the scale of largest magnitude becomes -half_scales
    for (int g = 0; g < groups; ++g) {
      columns[g].load(in + 4 * values * g, importance ? importance + 4 * values * g : nullptr);
      exact[g] = codes_of.search(columns[g]);
      for (int j = 0; j < 4; ++j)
        if (std::fabs(exact[g][j]) > std::fabs(top)) top = exact[g][j];
    }
    float d = f16_beyond(top / low_scale[0]);
    const F4 inverse = reciprocal(splat(d));
    for (int g = 0; g < groups; ++g) scale[g] = nearest_code(exact[g] * inverse, low_scale, high_scale);
    for (int round = 0; try_scales(d) && round < rounds; ++round) d = refit(d);
  }

  // Chooses the integer scales for d; false (and nothing changes) when that is no improvement.
  bool try_scales(float d) {
    const uint16_t new_d = f32_to_f16(d);
    const F4 step = splat(f16_to_f32(new_d));
    F4 new_scale[groups];
    float new_error = 0;
    for (int g = 0; g < groups; ++g) {
      F4 best = splat(std::numeric_limits<float>::infinity());
      new_scale[g] = scale[g];
      for (int a = -2; a <= 2; ++a) {
        const F4 s = lanes_min(lanes_max(scale[g] + splat(static_cast<float>(a)), low_scale), high_scale);
        const F4 e = codes_of.error(columns[g], step * s);
        const I4 better = e < best;
        best = pick(better, e, best);
        new_scale[g] = pick(better, s, new_scale[g]);
      }
      new_error += lanes_sum(best);
    }
    if (!(new_error < error)) return false;
    error = new_error;
    d_bits = new_d;
    std::copy_n(new_scale, groups, scale);
    return true;
  }

  // Least squares of x ~ d (scale nearest(q)) over all 256 values.
  float refit(float d) const {
    F4 ux = splat(0), uu = splat(0);
    for (int g = 0; g < groups; ++g) {
      const F4 inverse = reciprocal(splat(f16_to_f32(d_bits)) * scale[g]);
      for (int i = 0; i < values; ++i) {
        const F4 u = scale[g] * codes_of.nearest(columns[g].x[i] * inverse);
        ux += columns[g].w[i] * u * columns[g].x[i];
        uu += columns[g].w[i] * u * u;
      }
    }
    const float p = lanes_sum(ux), a = lanes_sum(uu);
    return a > 0 ? p / a : d;
  }
};

}  // namespace ke
