// Sampling of a token from a row of scores: by which rule, and the result. TokenSampler is the definition that every
// device's Backend::sample() follows: the same token, and the same bits of what its log-probability is made of.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace ke {

// Tokens begin .. end - 1.
struct IdRange {
  int32_t begin, end;
};

struct Sampling {
  float temperature = 0;  // 0: the token of the highest score (the lowest id among equals)
  int32_t top_k = 0;      // 0: off
  float top_p = 1;        // 1: off

  // What score differences are multiplied by: 1 / temperature, or the largest float where that is beyond it.
  // temperature > 0.
  float scale() const;
};

// top_p as the float that Sampling holds: what is above 0 stays above 0.
float narrow_top_p(double top_p);

struct SamplingRule {
  std::vector<IdRange> allowed;  // ascending, without overlap; at least one, and none empty
  Sampling sampling;
  double random = 0;  // [0, 1): where in the distribution; without meaning at temperature 0
};

struct Sampled {
  int32_t id = 0;
  bool finite = false;  // every logit of the row is; else the rest has no meaning
  float logit = 0;      // of id
  float top = 0;        // the highest of the row, allowed or not
  double sum = 0;       // of e^(logit - top) over the row, as sum_exp() adds them

  // ln softmax(row)[id], over the whole row; right to about 1e-6.
  double log_probability() const;
};

// What Backend::sample() asks of its rules, for rows of `cols` logits.
void check_rules(std::span<const SamplingRule> rules, int64_t rows, int64_t cols);

// Sets the scores of all tokens but those of `allowed` to -infinity.
void keep_allowed(std::span<float> scores, std::span<const IdRange> allowed);

class TokenSampler {
 public:
  // The token for a random number in [0, 1); scores of -infinity may not come. Order as in transformers: temperature,
  // top-k, top-p.
  int32_t sample(std::span<const float> scores, const Sampling& sampling, double random);

 private:
  void list_from(std::span<const float> scores, float threshold);
  std::vector<float> weights_, sorted_;  // (vocab), scratch
  std::vector<int32_t> order_;           // candidates, best first
};

}  // namespace ke
