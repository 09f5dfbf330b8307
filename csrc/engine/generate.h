// Prompt -> answer: prefill, then one token at a time (or several beams), until an end condition.
#pragma once
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
  uint64_t logits_hash = 0;  // of the bits of all logits that decided a token, in order
  size_t reused = 0;         // positions of the prompt that were not computed again
  double prefill_ms = 0, decode_ms = 0;
};

// Called with each token as it is decided (beams: once the best beam is known). Returning false ends the answer.
using OnToken = std::function<bool(int32_t id, float logprob)>;

// InvalidRequest naming the parameter, its range and the value.
void check_params(const GenerateParams& params);

// ContextTooLong, with both counts, before anything is computed.
void check_context(const Model& model, const Prompt& prompt, int64_t new_tokens);

Generation generate(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt, const GenerateParams& params,
                    const OnToken& on_token, const CancelToken* cancel);

// Parts shared by the plain and the beam search.

// Bounds the memory of activations; results do not depend on it.
constexpr size_t kRowsPerPass = 256;

// The rows of a prompt that its prefix cache does not have, in passes of bounded size; logits of the
// last row, (vocab). reused (may be nullptr) becomes the number of those that it has.
std::vector<float> prefill(const Model& model, const Prompt& prompt, KvCache& cache, const CancelToken* cancel,
                           size_t* reused);
std::unique_ptr<Constraint> make_constraint(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt,
                                            const GenerateParams& params);
void beam_search(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt, const GenerateParams& params,
                 const CancelToken* cancel, Generation& out);

}  // namespace ke
