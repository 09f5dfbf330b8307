#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "backend/logits.h"
#include "base/error.h"

namespace ke {

constexpr size_t kUsualRanges = 64;  // of tokens that may come: room for them from the beginning
constexpr const char* kNotFinite = "the model's weights gave a logit that is not a finite number";

double log_probability(std::span<const float> logits, int32_t id) {
  const float top = logits[argmax(logits)];
  return Sampled{id, true, logits[id], top, sum_exp(logits, top)}.log_probability();
}

void append_top(std::span<const float> logits, size_t count, std::vector<TokenLogprob>& out) {
  const float top = logits[argmax(logits)];
  const double sum = sum_exp(logits, top);
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  count = std::min(count, ids.size());
  std::partial_sort(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(count), ids.end(),
                    [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  for (int32_t id : std::span(ids).first(count))
    out.push_back({id, static_cast<float>(Sampled{id, true, logits[id], top, sum}.log_probability())});
}

void check_finite(std::span<const float> logits) { KE_CHECK(all_finite(logits), ModelCorrupt, kNotFinite); }
void check_finite(const Sampled& sampled) { KE_CHECK(sampled.finite, ModelCorrupt, kNotFinite); }

void penalize(std::span<float> scores, const std::vector<int32_t>& sequence, float penalty, std::vector<bool>& seen) {
  if (penalty == 1) return;
  seen.assign(scores.size(), false);
  for (const int32_t id : sequence) {
    const auto at = static_cast<size_t>(id);
    if (seen[at] || std::isinf(scores[at])) continue;  // what may not come is not made possible
    seen[at] = true;
    scores[at] = scores[at] < 0 ? scores[at] * penalty : scores[at] / penalty;
    // Beyond every float: the highest or the lowest, which sampling can still compute with.
    if (std::isinf(scores[at])) scores[at] = std::copysign(std::numeric_limits<float>::max(), scores[at]);
  }
}

void repeated_ngrams(std::span<const int32_t> sequence, int32_t n, std::vector<int32_t>& ids) {
  const int64_t length = static_cast<int64_t>(sequence.size());
  if (n <= 0 || length + 1 < n) return;
  const auto prefix = sequence.end() - (n - 1);
  for (int64_t i = 0; i + n <= length; i++)
    if (std::equal(prefix, sequence.end(), sequence.begin() + i))
      ids.push_back(sequence[static_cast<size_t>(i + n - 1)]);
}

Rules::Rules(std::vector<int32_t> never) : never_(std::move(never)) {
  allowed_.reserve(kUsualRanges);
  kept_.reserve(kUsualRanges);
  banned_.reserve(kUsualRanges);
}

std::span<const IdRange> Rules::allowed(int32_t vocab, const std::vector<int32_t>& sequence, int32_t n,
                                        const Constraint* constraint) {
  allowed_.clear();
  if (constraint)
    constraint->allowed(vocab, allowed_);
  else
    allowed_.push_back({0, vocab});
  banned_.assign(never_.begin(), never_.end());
  repeated_ngrams(sequence, n, banned_);
  if (banned_.empty()) return allowed_;
  std::sort(banned_.begin(), banned_.end());
  kept_.clear();
  auto ban = banned_.begin();
  for (IdRange r : allowed_) {
    while (ban != banned_.end() && *ban < r.begin) ++ban;
    for (; ban != banned_.end() && *ban < r.end; ++ban) {
      if (r.begin < *ban) kept_.push_back({r.begin, *ban});
      r.begin = *ban + 1;
    }
    if (r.begin < r.end) kept_.push_back(r);
  }
  return kept_.empty() ? allowed_ : kept_;
}

void Rules::apply(std::span<float> scores, const std::vector<int32_t>& sequence, int32_t n,
                  const Constraint* constraint) {
  keep_allowed(scores, allowed(static_cast<int32_t>(scores.size()), sequence, n, constraint));
}

// splitmix64 (Steele, Lea, Flood 2014): the same seed gives the same text on every machine with the same scores.
constexpr uint64_t kStep = 0x9e3779b97f4a7c15ull;

void Sampler::skip() { state_ += kStep; }

double Sampler::random(size_t ahead) const {
  uint64_t z = state_ + kStep * (ahead + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

int32_t Sampler::sample(std::span<const float> scores) {
  const double u = random(0);
  skip();
  return token_sampler_.sample(scores, sampling_, u);
}

}  // namespace ke
