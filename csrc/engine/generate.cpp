#include "engine/generate.h"

#include <chrono>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace ke {

using Clock = std::chrono::steady_clock;
static double ms_since(Clock::time_point t) {
  return std::chrono::duration<double, std::milli>(Clock::now() - t).count();
}

void check_params(const GenerateParams& p) {
  KE_CHECK(p.max_tokens >= 1, InvalidRequest, "max_tokens must be at least 1, got ", p.max_tokens);
  KE_CHECK(p.sampler.temperature >= 0 && p.sampler.temperature <= 100, InvalidRequest,
           "temperature must be in 0..100, got ", p.sampler.temperature);
  KE_CHECK(p.sampler.top_k >= 0, InvalidRequest, "top_k must be 0 (off) or more, got ", p.sampler.top_k);
  KE_CHECK(p.sampler.top_p > 0 && p.sampler.top_p <= 1, InvalidRequest, "top_p must be above 0 and at most 1, got ",
           p.sampler.top_p);
  KE_CHECK(p.sampler.no_repeat_ngram_size >= 0, InvalidRequest, "no_repeat_ngram_size must be 0 (off) or more, got ",
           p.sampler.no_repeat_ngram_size);
  KE_CHECK(p.num_beams >= 1 && p.num_beams <= 8, InvalidRequest, "num_beams must be in 1..8, got ", p.num_beams);
  KE_CHECK(std::isfinite(p.length_penalty) && std::abs(p.length_penalty) <= 10, InvalidRequest,
           "length_penalty must be in -10..10, got ", p.length_penalty);
  for (const std::string& s : p.stop) KE_CHECK(!s.empty(), InvalidRequest, "a stop string is empty");
  if (p.num_beams > 1) {
    KE_CHECK(p.sampler.temperature == 0, InvalidRequest, "num_beams ", p.num_beams, " and temperature ",
             p.sampler.temperature, " contradict each other: beams are for temperature 0");
    KE_CHECK(p.stop.empty(), InvalidRequest, "stop strings need num_beams 1, got ", p.num_beams);
  }
}

void check_context(const Model& model, size_t prompt_tokens, int64_t new_tokens) {
  const int64_t needed = static_cast<int64_t>(prompt_tokens) + new_tokens;
  KE_CHECK(needed <= model.context, ContextTooLong, "the prompt has ", prompt_tokens, " tokens and up to ", new_tokens,
           " are to follow: ", needed, " positions, the model has ", model.context);
}

std::vector<float> prefill(const Model& model, const Prompt& prompt, KvCache& cache, const CancelToken* cancel) {
  constexpr size_t kRowsPerPass = 256;  // bounds activation memory; results do not depend on it
  std::vector<float> logits(model.vocab);
  const size_t n = prompt.ids.size();
  for (size_t begin = 0; begin < n; begin += kRowsPerPass) {
    const size_t end = std::min(n, begin + kRowsPerPass);
    std::vector<InputRow> rows;
    for (size_t i = begin; i < end; i++)
      rows.push_back({prompt.ids[i], prompt.embedding[i], {&cache, static_cast<int32_t>(i)}});
    std::vector<int32_t> wanted;
    if (end == n) wanted.push_back(static_cast<int32_t>(rows.size()) - 1);
    model.forward(rows, wanted, logits.data(), cancel);
  }
  check_finite(logits);
  return logits;
}

std::unique_ptr<Constraint> make_constraint(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt,
                                            const GenerateParams& params) {
  if (!params.choices.empty()) {
    KE_CHECK(!params.grammar, InvalidRequest, "choices and grammar contradict each other: choose one");
    std::vector<std::vector<int32_t>> ids;
    for (const std::string& c : params.choices) ids.push_back(tokenizer.encode(c));
    return one_of(std::move(ids), model.format.eos);
  }
  if (!params.grammar) return nullptr;
  std::unique_ptr<Constraint> grammar = location_grammar(model.format);
  for (int32_t id : prompt.ids) grammar->accept(id);
  return grammar;
}

static void greedy_or_sampled(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt,
                              const GenerateParams& params, const OnToken& on_token, const CancelToken* cancel,
                              Generation& out) {
  const Clock::time_point start = Clock::now();
  const std::unique_ptr<KvCache> cache = model.new_cache(static_cast<int64_t>(prompt.ids.size()) + params.max_tokens);
  const std::unique_ptr<Constraint> constraint = make_constraint(model, tokenizer, prompt, params);
  std::vector<float> logits = prefill(model, prompt, *cache, cancel), scores;
  out.prefill_ms = ms_since(start);

  const Clock::time_point decode_start = Clock::now();
  Sampler sampler(params.sampler);
  std::vector<int32_t> sequence = prompt.ids;
  sequence.reserve(sequence.size() + params.max_tokens);
  while (true) {
    scores = logits;
    apply_rules(scores, sequence, params.sampler.no_repeat_ngram_size, constraint.get());
    const int32_t id = sampler.pick(scores);
    const bool scored = params.logprobs || model.format.is_location(id);
    const float logprob =
        scored ? static_cast<float>(log_probability(logits, id)) : std::numeric_limits<float>::quiet_NaN();
    out.ids.push_back(id);
    out.logprobs.push_back(logprob);
    sequence.push_back(id);
    if (constraint) constraint->accept(id);

    const bool go_on = !on_token || on_token(id, logprob);
    const auto finish = [&](FinishReason reason) { out.reason = reason, out.decode_ms = ms_since(decode_start); };
    if (constraint && constraint->complete()) return finish(FinishReason::Choice);
    if (id == model.format.eos) return finish(FinishReason::Eos);
    if (!params.stop.empty()) {
      const std::string text = tokenizer.decode(out.ids);
      for (const std::string& s : params.stop)
        if (text.find(s) != std::string::npos) return out.stop_string = s, finish(FinishReason::StopString);
    }
    if (!go_on) return finish(FinishReason::Callback);
    if (static_cast<int32_t>(out.ids.size()) == params.max_tokens) return finish(FinishReason::Length);

    model.forward({{id, nullptr, {cache.get(), static_cast<int32_t>(sequence.size()) - 1}}}, {0}, logits.data(),
                  cancel);
    check_finite(logits);
  }
}

Generation generate(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt, const GenerateParams& params,
                    const OnToken& on_token, const CancelToken* cancel) {
  check_params(params);
  check_context(model, prompt.ids.size(), params.max_tokens);
  Generation out;
  out.prompt_ids = prompt.ids;
  if (params.num_beams == 1) {
    greedy_or_sampled(model, tokenizer, prompt, params, on_token, cancel, out);
  } else {
    beam_search(model, tokenizer, prompt, params, cancel, out);
    for (size_t i = 0; on_token && i < out.ids.size(); i++)
      if (!on_token(out.ids[i], out.logprobs[i])) break;
  }
  return out;
}

}  // namespace ke
