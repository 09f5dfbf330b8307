// Finds the scale (and offset) with which the rounded codes of a sub-block come closest to its values: smallest sum of
// w (x - approximation)^2. Candidate scales on a grid around "the range just fits" give candidate codes; for given
// codes the best scale and offset follow by least squares in closed form, error included, so that a candidate costs one
// pass over the values. Own design; the idea of least squares on rounded codes is llama.cpp's (ggml-quants.c,
// make_qkx2_quants).
#pragma once
#include <cmath>
#include <limits>

#include "quant/lanes.h"

namespace ke {

// Four sub-blocks of N values, one per lane.
template <int N>
struct Columns {
  F4 x[N];  // values
  F4 w[N];  // weights of the squared error, >= 0

  // Lane j: sub-block j of `used` consecutive ones; the last one also fills the lanes that are left.
  // importance: the weights, laid out as the values, or nullptr: 2 rms + |x|, which protects large values a little
  // and lies between plain squared error and the weights of llama.cpp's reference encoders.
  void load(const float* values, const float* importance, int used = 4) {
    for (int j = 0; j < 4; ++j) {
      const int from = (j < used ? j : used - 1) * N;
      for (int i = 0; i < N; ++i) {
        x[i][j] = values[from + i];
        if (importance) w[i][j] = importance[from + i];
      }
    }
    if (importance) return;
    F4 squares = splat(0);
    for (int i = 0; i < N; ++i) squares += x[i] * x[i];
    F4 base = splat(0);
    for (int j = 0; j < 4; ++j) base[j] = 2 * std::sqrt(squares[j] / N);
    for (int i = 0; i < N; ++i) w[i] = base + lanes_abs(x[i]);
  }

  // The codes that scale and offset give, sub-block after sub-block: 4 N of them.
  void write_codes(F4 scale, F4 offset, F4 low, F4 high, int8_t* codes) const {
    const F4 inverse = reciprocal(scale);
    for (int i = 0; i < N; ++i) {
      const F4 code = nearest_code((x[i] - offset) * inverse, low, high);
      for (int j = 0; j < 4; ++j) codes[j * N + i] = static_cast<int8_t>(code[j]);
    }
  }
};

// x ~ scale * code + offset, and the weighted squared error.
struct ScaleFit {
  F4 scale, offset, error;

  void improve(const ScaleFit& other) {
    const I4 better = other.error < error;
    scale = pick(better, other.scale, scale);
    offset = pick(better, other.offset, offset);
    error = pick(better, other.error, error);
  }
};

// The error that scale and offset really give, every value rounded to its nearest code.
template <int N>
ScaleFit measure(const Columns<N>& c, F4 scale, F4 offset, F4 low, F4 high) {
  const F4 inverse = reciprocal(scale);
  F4 error = splat(0);
  for (int i = 0; i < N; ++i) {
    const F4 code = nearest_code((c.x[i] - offset) * inverse, low, high);
    const F4 rest = c.x[i] - (scale * code + offset);
    error += c.w[i] * rest * rest;
  }
  return {scale, offset, error};
}

// Codes 0..steps with an offset, which is <= 0 when negative_offset.
template <int N>
class AffineSearch {
 public:
  AffineSearch(const Columns<N>& columns, int steps, bool negative_offset)
      : c_(columns), steps_(splat(static_cast<float>(steps))), negative_offset_(negative_offset) {}

  ScaleFit best() {
    F4 low = c_.x[0], high = c_.x[0];
    for (int i = 0; i < N; ++i) {
      low = lanes_min(low, c_.x[i]);
      high = lanes_max(high, c_.x[i]);
      w_ += c_.w[i];
      const F4 wx = c_.w[i] * c_.x[i];
      wx_ += wx;
      wxx_ += wx * c_.x[i];
    }
    if (negative_offset_) low = lanes_min(low, splat(0));
    const F4 range = high - low, per_range = reciprocal(range);

    // Candidates: the range takes steps - steps/8 .. steps + steps/8 steps.
    constexpr int candidates = 21;
    ScaleFit found{splat(0), splat(0), splat(std::numeric_limits<float>::infinity())};
    for (int k = 0; k < candidates; ++k) {
      const float stretch = 1 + (static_cast<float>(k) / (candidates - 1) - 0.5f) * 0.25f;
      found.improve(refit(steps_ * splat(stretch) * per_range, low));
    }
    found.improve(refit(reciprocal(found.scale), found.offset));

    // The closed form cannot be trusted where nearly all codes are equal: compare what the fits really give.
    ScaleFit fit = measure(c_, range / steps_, low, splat(0), steps_);
    fit.improve(measure(c_, found.scale, found.offset, splat(0), steps_));
    return fit;
  }

 private:
  // Least squares for the codes of (x - offset) * inverse.
  ScaleFit refit(F4 inverse, F4 offset) const {
    F4 wq = splat(0), wqq = splat(0), wqx = splat(0);
    for (int i = 0; i < N; ++i) {
      const F4 code = nearest_code((c_.x[i] - offset) * inverse, splat(0), steps_);
      const F4 weighted = c_.w[i] * code;
      wq += weighted;
      wqq += weighted * code;
      wqx += weighted * c_.x[i];
    }
    const F4 determinant = w_ * wqq - wq * wq;
    F4 scale = (w_ * wqx - wx_ * wq) / determinant;
    F4 shift = (wqq * wx_ - wq * wqx) / determinant;
    if (negative_offset_) {
      const I4 positive = shift > splat(0);
      scale = pick(positive, ratio(wqx, wqq), scale);
      shift = pick(positive, splat(0), shift);
    }
    const I4 sound = (determinant > splat(1e-5f) * w_ * wqq) & (scale > splat(0));
    const F4 error = wxx_ - scale * wqx - shift * wx_;
    return {scale, shift, pick(sound, error, splat(std::numeric_limits<float>::infinity()))};
  }

  const Columns<N>& c_;
  const F4 steps_;
  const bool negative_offset_;
  F4 w_ = splat(0), wx_ = splat(0), wxx_ = splat(0);  // weighted sums of 1, x, x^2
};

// The best scale of x ~ scale * nearest(x / scale), where nearest gives values from low to high, evenly spaced or not.
// It may be negative when low != -high (the largest value may take either end). Candidates: the largest value takes the
// value at the end, stretched by up to half of `reach`.
template <int N, class Nearest>
F4 search_signed(const Columns<N>& c, const Nearest& nearest, F4 low, F4 high, int candidates, float reach) {
  F4 peak = splat(0);
  for (int i = 0; i < N; ++i) peak = pick(lanes_abs(c.x[i]) > lanes_abs(peak), c.x[i], peak);
  const F4 per_peak = reciprocal(peak);

  F4 best_scale = splat(0), best_gain = splat(-1);  // gain: how much less the error is than that of all zeros
  const auto attempt = [&](F4 inverse) {
    F4 wqx = splat(0), wqq = splat(0);
    for (int i = 0; i < N; ++i) {
      const F4 value = nearest(c.x[i] * inverse), weighted = c.w[i] * value;
      wqx += weighted * c.x[i];
      wqq += weighted * value;
    }
    const F4 scale = ratio(wqx, wqq), gain = scale * wqx;
    const I4 better = gain > best_gain;
    best_gain = pick(better, gain, best_gain);
    best_scale = pick(better, scale, best_scale);
  };
  for (int k = 0; k < candidates; ++k) {
    const F4 stretch = splat(1 + (static_cast<float>(k) / static_cast<float>(candidates - 1) - 0.5f) * reach);
    attempt(stretch * low * per_peak);
    if (low[0] != -high[0]) attempt(stretch * high * per_peak);
  }
  attempt(reciprocal(best_scale));
  return best_scale;
}

// Codes low..high without an offset.
template <int N>
ScaleFit search_symmetric(const Columns<N>& c, int low_code, int high_code, int candidates) {
  const F4 low = splat(static_cast<float>(low_code)), high = splat(static_cast<float>(high_code));
  const auto nearest = [&](F4 x) { return nearest_code(x, low, high); };
  return measure(c, search_signed(c, nearest, low, high, candidates, 0.25f), splat(0), low, high);
}

}  // namespace ke
