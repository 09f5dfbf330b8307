// Scores -> token id: n-gram block, temperature, top-k, top-p, or the best one.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "engine/constraint.h"

namespace ke {

struct SamplerParams {
  float temperature = 0;  // 0: the token of the highest score (the lowest id among equals)
  int32_t top_k = 0;      // 0: off
  float top_p = 1;        // 1: off
  uint64_t seed = 0;
  int32_t no_repeat_ngram_size = 0;  // 0: off
};

// ln softmax(logits)[id], over the whole vocabulary, summed in double; right to about 1e-6.
double log_probability(std::span<const float> logits, int32_t id);

// ModelCorrupt unless every logit is finite.
void check_finite(std::span<const float> logits);

// Sets to -infinity what would repeat an n-gram of `sequence` (transformers NoRepeatNGramLogitsProcessor: prompt, image
// slots and box tokens count), after `constraint` (may be nullptr) had its say. Where only repeats are left, they stay.
void apply_rules(std::span<float> scores, const std::vector<int32_t>& sequence, int32_t no_repeat_ngram_size,
                 const Constraint* constraint);

class Sampler {
 public:
  explicit Sampler(const SamplerParams& params) : params_(params), state_(params.seed) {}
  // scores after apply_rules. Order as in transformers: temperature, top-k, top-p.
  int32_t pick(std::span<const float> scores);
  // What pick() does to those that follow, where there is but one token to pick.
  void skip() {
    if (params_.temperature != 0) uniform();
  }

 private:
  double uniform();  // [0, 1)
  void list_from(std::span<const float> scores, float threshold);
  SamplerParams params_;
  uint64_t state_;
  std::vector<float> weights_, sorted_;  // (vocab), scratch
  std::vector<int32_t> order_;           // candidates, best first
};

}  // namespace ke
