// How far two distributions of the next token are from one another: what a storage type costs, token by token.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace ke {

struct Divergence {
  double kl = 0;              // sum p ln(p / q) in nats, p the softmax of the reference's logits
  int32_t reference_top = 0;  // the likeliest token of each; the first of equals
  int32_t other_top = 0;
};

// One result per row of two (rows, vocab) arrays of finite logits. InvalidRequest where the sizes do not fit.
std::vector<Divergence> divergences(std::span<const float> reference, std::span<const float> other, int64_t vocab);

}  // namespace ke
