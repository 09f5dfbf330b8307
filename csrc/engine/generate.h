// Prompt -> answer: prefill, then one token at a time (or several beams), until an end condition.
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "engine/prompt.h"
#include "engine/sampler.h"

namespace ke {

struct GenerateParams {
  int32_t max_tokens = 128;  // >= 1
  SamplerParams sampler;
  int32_t num_beams = 1;             // 1..limits::kMaxBeams
  float length_penalty = 1;          // beams: score = sum of log-probabilities / length^length_penalty
  std::vector<std::string> stop;     // ends the answer where its text first contains one of these
  std::vector<std::string> choices;  // the answer is exactly one of these
  bool grammar = false;              // keep location tags well formed
  bool logprobs = false;             // of every token; without it location tokens and those of phrases have one
  int32_t top_logprobs = 0;          // 0..limits::kMaxTopLogprobs: fill Generation::top; includes logprobs
  bool hash_logits = false;          // fill Generation::logits_hash (not with beams)
  bool draft = true;                 // try likely tokens ahead of their turn; the answer does not depend on it
  // Contrastive search among the sampler's top_k likeliest tokens, and MAGIC's rule: engine/contrastive.cpp.
  float degeneration_penalty = 0;  // 0..1; 0: off
  float image_weight = 0;          // 0..limits::kMaxImageWeight; 0: off; else one of the two that follow
  // How well the answer so far with each of the candidates behind it fits the image; their softmax counts.
  std::function<std::vector<double>(const std::vector<int32_t>& answer, const std::vector<int32_t>& candidates)>
      relevance;
  // How much likelier a token is than behind the prompt without its images, which Engine::blind_prompt makes.
  bool guided_by_self = false;
  std::shared_ptr<const Prompt> blind;
  bool contrastive() const { return degeneration_penalty > 0 || image_weight > 0; }
};

enum class FinishReason { Eos, StopString, Length, Choice, Callback };

struct Generation {
  std::vector<int32_t> prompt_ids;
  std::vector<int32_t> ids;     // the answer, </s> included when it came
  std::vector<float> logprobs;  // per id: ln softmax over the whole vocabulary before any rule; NaN where not asked for
  std::vector<TokenLogprob> top;  // top_logprobs for each id, the most likely first; before any rule, as logprobs
  FinishReason reason = FinishReason::Length;
  std::string stop_string;   // the one that was met
  int32_t passes = 0;        // of the model that gave a token or several (beams: not counted)
  int32_t drafted = 0;       // tokens that were tried ahead of their turn
  int32_t accepted = 0;      // those of them that came, so that what follows them was known without another pass
  uint64_t logits_hash = 0;  // of the bits of all logits that decided a token, in order
  size_t reused = 0;         // positions of the prompt that were not computed again
  double prefill_ms = 0, decode_ms = 0;
};

// Called with each token as it is decided (beams: once the best beam is known). Returning false ends the answer.
using OnToken = std::function<bool(int32_t id, float logprob)>;

// InvalidRequest naming the parameter, its range and the value.
void check_contrastive(const GenerateParams& params);
void check_params(const GenerateParams& params);

// ContextTooLong, with both counts, before anything is computed.
void check_context(const Model& model, const Prompt& prompt, int64_t new_tokens);

Generation generate(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt, const GenerateParams& params,
                    const OnToken& on_token, const CancelToken* cancel);

// Parts shared by the plain and the beam search.

inline double ms_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// Bounds the memory of activations; results do not depend on it.
constexpr size_t kRowsPerPass = 256;

// The rows of a prompt that its prefix cache does not have, in passes of bounded size; logits of the
// last row, (vocab). reused (may be nullptr) becomes the number of those that it has.
std::vector<float> prefill(const Model& model, const Prompt& prompt, KvCache& cache, const CancelToken* cancel,
                           size_t* reused);
std::unique_ptr<Constraint> make_constraint(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt,
                                            const GenerateParams& params);
void contrastive_search(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt,
                        const GenerateParams& params, const OnToken& on_token, const CancelToken* cancel,
                        Generation& out);
void beam_search(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt, const GenerateParams& params,
                 const CancelToken* cancel, Generation& out);

}  // namespace ke
