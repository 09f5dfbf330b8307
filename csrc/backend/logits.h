// Functions over a row of logits, one per token of a vocabulary (65 k): plain C++ that compilers turn into vector code,
// with a fixed order of additions, so that every machine finds the same bits.
#pragma once
#include <cstdint>
#include <span>

namespace ke {

// Whether no score is infinite or NaN.
bool all_finite(std::span<const float> scores);

// A hash of the scores' bits that goes on from an earlier one: for comparing runs, no defence against anybody.
uint64_t hash_bits(std::span<const float> scores, uint64_t before);

// The first index of the highest score; scores is not empty and holds no NaN.
int32_t argmax(std::span<const float> scores);

// Sum of e^(s - top), top being the highest score; a score of -infinity counts as about 1e-38.
double sum_exp(std::span<const float> scores, float top);

// weights[i] = e^((scores[i] - top) * scale), 0 for a score of -infinity; returns their sum. scale > 0.
double exp_weights(std::span<const float> scores, float top, float scale, std::span<float> weights);

}  // namespace ke
