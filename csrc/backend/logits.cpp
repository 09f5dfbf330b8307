#include "backend/logits.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace ke {
namespace {

constexpr size_t kBlock = 512;  // scores per stretch of a pass: its values stay in the first-level cache
constexpr size_t kLanes = 8;    // sums side by side

constexpr float kLowest = -87.0f;  // e to this is about the smallest normal float

// e^x for x in kLowest..0, to about two units in the last place: 2^n e^r with n = round(x / ln 2) and Cephes'
// polynomial (expf).
inline float exp_of(float x) {
  const float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // 1.5 * 2^23: rounds to an integer
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float e = p * (r * r) + r + 1.0f;
  return e * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

// e[i] = e^((s[i] - top) * scale). Loops without a branch, one after the other: so GCC makes vector code of them.
void exp_block(const float* s, size_t n, float top, float scale, float* e) {
  for (size_t i = 0; i < n; i++) e[i] = (s[i] - top) * scale;
  for (size_t i = 0; i < n; i++) e[i] = e[i] > kLowest ? e[i] : kLowest;
  for (size_t i = 0; i < n; i++) e[i] = exp_of(e[i]);
}

double sum_of(const float* x, size_t n) {
  double lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (size_t j = 0; j < kLanes; j++) lanes[j] += static_cast<double>(x[i + j]);
  double sum = 0;
  for (; i < n; i++) sum += static_cast<double>(x[i]);
  for (double lane : lanes) sum += lane;
  return sum;
}

}  // namespace

uint64_t hash_bits(std::span<const float> scores, uint64_t before) {
  uint64_t h = before ^ 0xcbf29ce484222325u;  // FNV-1a over words of 32 bits
  for (float s : scores) h = (h ^ std::bit_cast<uint32_t>(s)) * 0x100000001b3u;
  return h;
}

bool all_finite(std::span<const float> scores) {
  float lanes[4 * kLanes] = {};  // 0 * x is NaN exactly for the non-finite
  size_t i = 0;
  for (; i + 4 * kLanes <= scores.size(); i += 4 * kLanes)
    for (size_t j = 0; j < 4 * kLanes; j++) lanes[j] += 0.0f * scores[i + j];
  float sum = 0;
  for (; i < scores.size(); i++) sum += 0.0f * scores[i];
  for (float lane : lanes) sum += lane;
  return sum == 0;
}

int32_t argmax(std::span<const float> scores) {
  const float lowest = -std::numeric_limits<float>::infinity();
  float best = lowest;
  size_t where = 0;
  for (size_t begin = 0; begin < scores.size(); begin += kBlock) {
    const size_t n = std::min(kBlock, scores.size() - begin);
    const float* s = scores.data() + begin;
    float lanes[2 * kLanes];
    std::fill(std::begin(lanes), std::end(lanes), lowest);
    size_t i = 0;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes)
      for (size_t j = 0; j < 2 * kLanes; j++) lanes[j] = s[i + j] > lanes[j] ? s[i + j] : lanes[j];
    float top = *std::max_element(std::begin(lanes), std::end(lanes));
    for (; i < n; i++) top = std::max(top, s[i]);
    if (top > best) best = top, where = begin;
  }
  const auto end = scores.end();
  return static_cast<int32_t>(std::find(scores.begin() + where, end, best) - scores.begin());
}

double sum_exp(std::span<const float> scores, float top) {
  double sum = 0;
  float block[kBlock];
  for (size_t begin = 0; begin < scores.size(); begin += kBlock) {
    const size_t n = std::min(kBlock, scores.size() - begin);
    exp_block(scores.data() + begin, n, top, 1, block);
    sum += sum_of(block, n);
  }
  return sum;
}

double exp_weights(std::span<const float> scores, float top, float scale, std::span<float> weights) {
  const float lowest = -std::numeric_limits<float>::infinity();
  double sum = 0;
  for (size_t begin = 0; begin < scores.size(); begin += kBlock) {
    const size_t n = std::min(kBlock, scores.size() - begin);
    const float* s = scores.data() + begin;
    float* w = weights.data() + begin;
    exp_block(s, n, top, scale, w);
    for (size_t i = 0; i < n; i++) w[i] = s[i] > lowest ? w[i] : 0.0f;
    sum += sum_of(w, n);
  }
  return sum;
}

}  // namespace ke
