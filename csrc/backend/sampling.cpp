#include "backend/sampling.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "backend/backend.h"
#include "backend/logits.h"
#include "base/error.h"

namespace ke {

constexpr float kNever = -std::numeric_limits<float>::infinity();

float Sampling::scale() const {
  return std::min(1 / temperature, std::numeric_limits<float>::max());  // not infinity: times 0 that is no number
}

float narrow_top_p(double top_p) {
  const float narrow = static_cast<float>(top_p);
  return top_p > 0 ? std::max(narrow, std::numeric_limits<float>::denorm_min()) : narrow;
}

double Sampled::log_probability() const { return static_cast<double>(logit) - top - std::log(sum); }

void check_rules(std::span<const SamplingRule> rules, int64_t rows, int64_t cols) {
  KE_ASSERT(static_cast<int64_t>(rules.size()) == rows);
  for (const SamplingRule& rule : rules) {
    KE_ASSERT(!rule.allowed.empty());
    int64_t end = 0;
    for (const IdRange& r : rule.allowed) {
      KE_ASSERT(end <= r.begin && r.begin < r.end && r.end <= cols);
      end = r.end;
    }
  }
}

void keep_allowed(std::span<float> scores, std::span<const IdRange> allowed) {
  auto at = scores.begin();
  for (const IdRange& r : allowed) {
    std::fill(at, scores.begin() + r.begin, kNever);
    at = scores.begin() + r.end;
  }
  std::fill(at, scores.end(), kNever);
}

// Those that may come at all and score at least `threshold`, best first, the lower id among equals.
void TokenSampler::list_from(std::span<const float> scores, float threshold) {
  order_.clear();
  for (size_t i = 0; i < scores.size(); i++)
    if (scores[i] >= threshold && scores[i] > kNever) order_.push_back(static_cast<int32_t>(i));
  std::sort(order_.begin(), order_.end(),
            [&](int32_t a, int32_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
}

int32_t TokenSampler::sample(std::span<const float> scores, const Sampling& s, double random) {
  const int32_t best = argmax(scores);
  if (s.temperature == 0) return best;

  weights_.resize(scores.size());
  double total = exp_weights(scores, scores[best], s.scale(), weights_);
  if (s.top_k > 0 && static_cast<size_t>(s.top_k) < scores.size()) {
    sorted_.assign(scores.begin(), scores.end());
    std::nth_element(sorted_.begin(), sorted_.begin() + (s.top_k - 1), sorted_.end(), std::greater<>());
    list_from(scores, sorted_[s.top_k - 1]);
    order_.resize(std::min(order_.size(), static_cast<size_t>(s.top_k)));
    total = 0;
    for (int32_t id : order_) total += weights_[id];
  } else if (s.top_p < 1) {
    // As a rule it keeps few tokens: those within e^-8 of the best, else within e^-16, are sorted before all are.
    double listed = 0;
    for (float depth : {8.0f, 16.0f, std::numeric_limits<float>::infinity()}) {
      if (listed >= s.top_p * total) break;
      list_from(scores, scores[best] - depth * s.temperature);
      listed = 0;
      for (int32_t id : order_) listed += weights_[id];
    }
  } else {
    double u = random * total;
    for (size_t i = 0; i < scores.size(); i++)
      if ((u -= weights_[i]) < 0) return static_cast<int32_t>(i);
    return best;
  }
  size_t n = order_.size();
  if (s.top_p < 1) {  // the fewest tokens whose probability reaches top_p
    double kept = 0;
    n = 0;
    while (n < order_.size() && kept < s.top_p * total) kept += weights_[order_[n++]];
    total = kept;
  }
  double u = random * total;
  for (size_t i = 0; i < n; i++)
    if ((u -= weights_[order_[i]]) < 0) return order_[i];
  return order_[n - 1];
}

// For devices that have no better way: the host does it.
void Backend::sample(Mat logits, std::span<const SamplingRule> rules, std::span<Sampled> sampled) {
  check_rules(rules, logits.rows, logits.cols);
  std::vector<float> row(static_cast<size_t>(logits.cols));
  TokenSampler sampler;
  for (size_t r = 0; r < rules.size(); r++) {
    const int64_t at = static_cast<int64_t>(r);
    read(logits.row_range(at, at + 1), row.data());
    Sampled& c = sampled[r] = {};
    c.finite = all_finite(row);
    if (!c.finite) continue;
    c.top = row[static_cast<size_t>(argmax(row))];
    c.sum = sum_exp(row, c.top);
    std::vector<float> scores = row;
    keep_allowed(scores, rules[r].allowed);
    c.id = sampler.sample(scores, rules[r].sampling, rules[r].random);
    c.logit = row[static_cast<size_t>(c.id)];
  }
}

}  // namespace ke
