#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace ke {

double log_probability(std::span<const float> logits, int32_t id) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float l : logits) sum += std::exp(l - top);
  return static_cast<double>(logits[id]) - top - std::log(sum);
}

void check_finite(std::span<const float> logits) {
  float sum = 0;  // 0 * x is NaN exactly for the non-finite
  for (float l : logits) sum += 0.0f * l;
  KE_CHECK(sum == 0, ModelCorrupt, "the model's weights gave a logit that is not a finite number");
}

void apply_rules(std::span<float> scores, const std::vector<int32_t>& sequence, int32_t n,
                 const Constraint* constraint) {
  if (constraint) constraint->restrict(scores);
  const int64_t length = static_cast<int64_t>(sequence.size());
  if (n <= 0 || length + 1 < n) return;
  std::vector<std::pair<int32_t, float>> banned;
  const auto prefix = sequence.end() - (n - 1);
  for (int64_t i = 0; i + n <= length; i++) {
    if (!std::equal(prefix, sequence.end(), sequence.begin() + i)) continue;
    const int32_t next = sequence[i + n - 1];
    banned.push_back({next, scores[next]});
    scores[next] = -std::numeric_limits<float>::infinity();
  }
  if (banned.empty() || *std::max_element(scores.begin(), scores.end()) > -std::numeric_limits<float>::infinity())
    return;
  for (auto it = banned.rbegin(); it != banned.rend(); ++it) scores[it->first] = it->second;
}

// splitmix64 (Steele, Lea, Flood 2014): the same seed gives the same text on every machine with the same scores.
double Sampler::uniform() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

int32_t Sampler::pick(std::span<float> scores) {
  const int32_t best = static_cast<int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
  if (params_.temperature == 0) return best;

  std::vector<int32_t> order;
  for (size_t i = 0; i < scores.size(); i++)
    if (scores[i] > -std::numeric_limits<float>::infinity()) order.push_back(static_cast<int32_t>(i));
  const auto higher = [&](int32_t a, int32_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; };
  if (params_.top_k > 0 && static_cast<size_t>(params_.top_k) < order.size()) {
    std::nth_element(order.begin(), order.begin() + params_.top_k, order.end(), higher);
    order.resize(params_.top_k);
  }
  std::sort(order.begin(), order.end(), higher);
  std::vector<double> p;
  double total = 0;
  for (int32_t id : order) {
    p.push_back(std::exp((static_cast<double>(scores[id]) - scores[best]) / params_.temperature));
    total += p.back();
  }
  if (params_.top_p < 1) {  // the fewest tokens whose probability reaches top_p
    double kept = 0;
    size_t n = 0;
    while (n < p.size() && kept < params_.top_p * total) kept += p[n++];
    p.resize(n);
    total = kept;
  }
  double u = uniform() * total;
  for (size_t i = 0; i < p.size(); i++)
    if ((u -= p[i]) < 0) return order[i];
  return order[p.size() - 1];
}

}  // namespace ke
