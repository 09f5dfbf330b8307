// Finds the scale with which values of a table (IQ4_NL, IQ4_XS) come closest to those of a sub-block: as scale_search.h
// does it for codes that are evenly spaced.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "quant/blocks.h"
#include "quant/scale_search.h"

namespace ke {

constexpr std::array<int8_t, 16> kTable = {KE_TABLE_VALUES};

// Rounding to the table's values: one of 512 stretches of half a unit each, from -128 on, tells the nearest, as all
// middles between two values are multiples of a half.
class TableRounding {
 public:
  constexpr TableRounding() : nearest_{}, code_{} {
    for (int i = 0; i < 512; ++i) {
      int best = 0;  // 4 * distance from the middle of the stretch
      for (int c = 1; c < 16; ++c)
        if (distance(c, i) < distance(best, i)) best = c;
      code_[i] = static_cast<uint8_t>(best);
      nearest_[i] = kTable[best];
    }
  }

  // The nearest value of the table.
  F4 operator()(F4 x) const {
    const I4 at = stretch(x);
    return F4{nearest_[at[0]], nearest_[at[1]], nearest_[at[2]], nearest_[at[3]]};
  }
  float operator()(float x) const { return (*this)(splat(x))[0]; }

  // Which value of the table that is, 0..15.
  uint8_t code(float x) const { return code_[stretch(splat(x))[0]]; }

 private:
  static constexpr int distance(int code, int stretch) {
    const int d = 4 * kTable[code] - (2 * (stretch - 256) + 1);
    return d < 0 ? -d : d;
  }
  static I4 stretch(F4 x) {
    const F4 at = lanes_min(lanes_max(x * splat(2) + splat(256), splat(0)), splat(511));
    return __builtin_convertvector(at, I4);
  }

  float nearest_[512];
  uint8_t code_[512];
};

inline constexpr TableRounding table_rounding;

// The error that a scale really gives, every value rounded to the nearest of the table.
template <int N>
F4 table_error(const Columns<N>& c, F4 scale) {
  const F4 inverse = reciprocal(scale);
  F4 error = splat(0);
  for (int i = 0; i < N; ++i) {
    const F4 rest = c.x[i] - scale * table_rounding(c.x[i] * inverse);
    error += c.w[i] * rest * rest;
  }
  return error;
}

// The best scale. Candidates reach further than those of even codes: inputs of very unequal importance gain by that.
template <int N>
F4 search_table(const Columns<N>& c, int candidates) {
  return search_signed(c, table_rounding, splat(kTable[0]), splat(kTable[15]), candidates, 0.75f);
}

}  // namespace ke
