#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "base/error.h"
#include "engine/vocabulary.h"

namespace ke {

constexpr float kNever = -std::numeric_limits<float>::infinity();

double log_probability(std::span<const float> logits, int32_t id) {
  const float top = logits[argmax(logits)];
  return static_cast<double>(logits[id]) - top - std::log(sum_exp(logits, top));
}

void check_finite(std::span<const float> logits) {
  KE_CHECK(all_finite(logits), ModelCorrupt, "the model's weights gave a logit that is not a finite number");
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

// Those that may come at all and score at least `threshold`, best first, the lower id among equals.
void Sampler::list_from(std::span<const float> scores, float threshold) {
  order_.clear();
  for (size_t i = 0; i < scores.size(); i++)
    if (scores[i] >= threshold && scores[i] > kNever) order_.push_back(static_cast<int32_t>(i));
  std::sort(order_.begin(), order_.end(),
            [&](int32_t a, int32_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
}

int32_t Sampler::pick(std::span<const float> scores) {
  const int32_t best = argmax(scores);
  if (params_.temperature == 0) return best;

  weights_.resize(scores.size());
  double total = exp_weights(scores, scores[best], 1 / params_.temperature, weights_);
  if (params_.top_k > 0 && static_cast<size_t>(params_.top_k) < scores.size()) {
    sorted_.assign(scores.begin(), scores.end());
    std::nth_element(sorted_.begin(), sorted_.begin() + (params_.top_k - 1), sorted_.end(), std::greater<>());
    list_from(scores, sorted_[params_.top_k - 1]);
    order_.resize(std::min(order_.size(), static_cast<size_t>(params_.top_k)));
    total = 0;
    for (int32_t id : order_) total += weights_[id];
  } else if (params_.top_p < 1) {
    // As a rule it keeps few tokens: those within e^-8 of the best, else within e^-16, are sorted before all are.
    double listed = 0;
    for (float depth : {8.0f, 16.0f, std::numeric_limits<float>::infinity()}) {
      if (listed >= params_.top_p * total) break;
      list_from(scores, scores[best] - depth * params_.temperature);
      listed = 0;
      for (int32_t id : order_) listed += weights_[id];
    }
  } else {
    double u = uniform() * total;
    for (size_t i = 0; i < scores.size(); i++)
      if ((u -= weights_[i]) < 0) return static_cast<int32_t>(i);
    return best;
  }
  size_t n = order_.size();
  if (params_.top_p < 1) {  // the fewest tokens whose probability reaches top_p
    double kept = 0;
    n = 0;
    while (n < order_.size() && kept < params_.top_p * total) kept += weights_[order_[n++]];
    total = kept;
  }
  double u = uniform() * total;
  for (size_t i = 0; i < n; i++)
    if ((u -= weights_[order_[i]]) < 0) return order_[i];
  return order_[n - 1];
}

}  // namespace ke
