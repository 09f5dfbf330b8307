// Scores -> token id: which tokens may come (grammar, n-gram block), then the best one or one drawn by temperature,
// top-k and top-p.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "backend/sampling.h"
#include "engine/constraint.h"

namespace ke {

struct SamplerParams : Sampling {
  uint64_t seed = 0;
  int32_t no_repeat_ngram_size = 0;  // 0: off
  float repetition_penalty = 1;      // 1: off
};

// ln softmax(logits)[id], over the whole vocabulary, summed in double; right to about 1e-6.
double log_probability(std::span<const float> logits, int32_t id);

struct TokenLogprob {
  int32_t id;
  float logprob;
};
// The `count` most likely tokens (all, if the vocabulary is smaller) by falling log_probability(), equal ones by id;
// appended to `out`.
void append_top(std::span<const float> logits, size_t count, std::vector<TokenLogprob>& out);

// ModelCorrupt unless every logit is finite.
void check_finite(std::span<const float> logits);
void check_finite(const Sampled& sampled);

// Divides the scores of all tokens of `sequence` by the penalty, or multiplies those below 0 by it, each once
// (transformers RepetitionPenaltyLogitsProcessor); prompt, image placeholders and box tokens count. `seen` is scratch.
void penalize(std::span<float> scores, const std::vector<int32_t>& sequence, float penalty, std::vector<bool>& seen);

// Adds the tokens behind which `sequence` would end in n tokens that it has already; n 0: none.
void repeated_ngrams(std::span<const int32_t> sequence, int32_t n, std::vector<int32_t>& ids);

// Which tokens may come next: those that `constraint` (may be nullptr) allows, but for those of `never` and those that
// would repeat an n-gram of `sequence` (transformers NoRepeatNGramLogitsProcessor: prompt, image placeholders and box
// tokens count). Where only these are left, they stay.
class Rules {
 public:
  explicit Rules(std::vector<int32_t> never);
  // Valid until the next call.
  std::span<const IdRange> allowed(int32_t vocab, const std::vector<int32_t>& sequence, int32_t no_repeat_ngram_size,
                                   const Constraint* constraint);
  // Sets the scores (vocab) of all others to -infinity.
  void apply(std::span<float> scores, const std::vector<int32_t>& sequence, int32_t no_repeat_ngram_size,
             const Constraint* constraint);

 private:
  std::vector<IdRange> allowed_, kept_;
  const std::vector<int32_t> never_;
  std::vector<int32_t> banned_;
};

class Sampler {
 public:
  explicit Sampler(const SamplerParams& params) : sampling_(params), state_(params.seed) {}
  // scores (vocab) after Rules::apply.
  int32_t sample(std::span<const float> scores);
  // What sample() does to those that follow, if there is but one token to sample, or a device samples it.
  void skip();
  const Sampling& sampling() const { return sampling_; }
  // The random number, [0, 1), of the sample after `ahead` others.
  double random(size_t ahead) const;

 private:
  Sampling sampling_;
  uint64_t state_;
  TokenSampler token_sampler_;
};

}  // namespace ke
