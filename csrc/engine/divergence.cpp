#include "engine/divergence.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace ke {
namespace {

// Index of the largest logit, and the logarithm of the sum of exp(logit - largest).
struct Normaliser {
  int32_t top;
  double log_sum;
};

Normaliser normaliser(std::span<const float> logits) {
  const auto top = std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float v : logits) sum += std::exp(static_cast<double>(v) - *top);
  KE_CHECK(std::isfinite(sum), InvalidRequest, "logits must be finite");
  return {static_cast<int32_t>(top - logits.begin()), std::log(sum)};
}

Divergence divergence(std::span<const float> p, std::span<const float> q) {
  const Normaliser np = normaliser(p), nq = normaliser(q);
  double kl = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double log_p = static_cast<double>(p[i]) - p[np.top] - np.log_sum;
    const double log_q = static_cast<double>(q[i]) - q[nq.top] - nq.log_sum;
    kl += std::exp(log_p) * (log_p - log_q);
  }
  return {std::max(kl, 0.0), np.top, nq.top};  // rounding may leave -1e-17
}

}  // namespace

std::vector<Divergence> divergences(std::span<const float> reference, std::span<const float> other, int64_t vocab) {
  KE_CHECK(vocab >= 1 && reference.size() == other.size() && reference.size() % static_cast<size_t>(vocab) == 0,
           InvalidRequest, "expected two arrays of whole rows of ", vocab, " logits, got ", reference.size(), " and ",
           other.size(), " values");
  const size_t n = static_cast<size_t>(vocab);
  std::vector<Divergence> out;
  for (size_t at = 0; at < reference.size(); at += n)
    out.push_back(divergence(reference.subspan(at, n), other.subspan(at, n)));
  return out;
}

}  // namespace ke
