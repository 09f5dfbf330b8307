#include "engine/generate.h"

#include <cmath>

#include "base/error.h"
#include "base/limits.h"
#include "engine/prefix_cache.h"
#include "engine/sequence.h"
#include "engine/source.h"

namespace ke {

void check_params(const GenerateParams& p) {
  using namespace limits;
  KE_CHECK(p.max_tokens >= 1, InvalidRequest, "max_tokens must be at least 1, got ", p.max_tokens);
  KE_CHECK(p.sampler.temperature >= 0 && p.sampler.temperature <= kMaxTemperature, InvalidRequest,
           "temperature must be in 0..", kMaxTemperature, ", got ", p.sampler.temperature);
  KE_CHECK(p.sampler.top_k >= 0, InvalidRequest, "top_k must be 0 (off) or more, got ", p.sampler.top_k);
  KE_CHECK(p.sampler.top_p > 0 && p.sampler.top_p <= 1, InvalidRequest, "top_p must be above 0 and at most 1, got ",
           p.sampler.top_p);
  KE_CHECK(p.sampler.no_repeat_ngram_size >= 0, InvalidRequest, "no_repeat_ngram_size must be 0 (off) or more, got ",
           p.sampler.no_repeat_ngram_size);
  KE_CHECK(p.sampler.repetition_penalty >= static_cast<float>(kMinRepetitionPenalty) &&
               p.sampler.repetition_penalty <= static_cast<float>(kMaxRepetitionPenalty),
           InvalidRequest, "repetition_penalty must be in ", kMinRepetitionPenalty, "..", kMaxRepetitionPenalty,
           " (1: off), got ", p.sampler.repetition_penalty);
  KE_CHECK(p.num_beams >= 1 && p.num_beams <= kMaxBeams, InvalidRequest, "num_beams must be in 1..", kMaxBeams,
           ", got ", p.num_beams);
  KE_CHECK(std::isfinite(p.length_penalty) && std::abs(p.length_penalty) <= kMaxLengthPenalty, InvalidRequest,
           "length_penalty must be in ", -kMaxLengthPenalty, "..", kMaxLengthPenalty, ", got ", p.length_penalty);
  KE_CHECK(p.top_logprobs >= 0 && p.top_logprobs <= kMaxTopLogprobs, InvalidRequest, "top_logprobs must be in 0..",
           kMaxTopLogprobs, ", got ", p.top_logprobs);
  for (const std::string& s : p.stop) KE_CHECK(!s.empty(), InvalidRequest, "a stop string is empty");
  check_contrastive(p);
  if (p.num_beams > 1) {
    KE_CHECK(p.sampler.temperature == 0, InvalidRequest, "num_beams ", p.num_beams, " and temperature ",
             p.sampler.temperature, " contradict each other: beams are for temperature 0");
    KE_CHECK(p.stop.empty(), InvalidRequest, "stop strings need num_beams 1, got ", p.num_beams);
  }
}

void check_context(const Model& model, const Prompt& prompt, int64_t new_tokens) {
  const size_t prompt_tokens = prompt.ids.size(), told = prompt.told().ids.size();
  KE_CHECK(!prompt.source || static_cast<int64_t>(told) <= model.info().context, ContextTooLong, "the prompt has ",
           told, " tokens, the encoder of the model has ", model.info().context, " positions");
  const int64_t needed = static_cast<int64_t>(prompt_tokens) + new_tokens;
  KE_CHECK(needed <= model.info().context, ContextTooLong, "the prompt has ", prompt_tokens, " tokens and up to ",
           new_tokens, " are to follow: ", needed, " positions, the model has ", model.info().context);
}

std::vector<float> prefill(const Model& model, const Prompt& prompt, KvCache& cache, const CancelToken* cancel,
                           size_t* reused) {
  std::vector<float> logits(model.info().vocab);
  const size_t n = prompt.ids.size();
  const size_t read = read_source(model, prompt, cancel), kept = restore_prefix(model, prompt, cache);
  if (reused) *reused = read + kept;
  for (size_t begin = kept; begin < n; begin += kRowsPerPass) {
    const size_t end = std::min(n, begin + kRowsPerPass);
    std::vector<InputRow> rows;
    for (size_t i = begin; i < end; i++) rows.push_back(prompt.row(i, &cache));
    std::vector<int32_t> logit_rows;
    if (end == n) logit_rows.push_back(static_cast<int32_t>(rows.size()) - 1);
    model.forward(rows, logit_rows, logits.data(), cancel);
  }
  check_finite(logits);
  save_prefix(model, prompt, prompt.ids, cache);
  return logits;
}

std::unique_ptr<Constraint> make_constraint(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt,
                                            const GenerateParams& params) {
  if (!params.choices.empty()) {
    KE_CHECK(!params.grammar, InvalidRequest, "choices and grammar contradict each other: choose one");
    std::vector<std::vector<int32_t>> ids;
    for (const std::string& c : params.choices) ids.push_back(tokenizer.encode(c));
    return one_of(std::move(ids), model.info().eos);
  }
  if (!params.grammar) return nullptr;
  KE_CHECK(model.info().grounding, InvalidRequest, "grammar: ", kNoGrounding);
  std::unique_ptr<Constraint> grammar = location_grammar(*model.info().grounding, model.info().eos);
  for (int32_t id : prompt.ids) grammar->accept(id);
  return grammar;
}

Generation generate(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt, const GenerateParams& params,
                    const OnToken& on_token, const CancelToken* cancel) {
  check_params(params);
  check_context(model, prompt, params.max_tokens);
  if (params.contrastive()) {
    Generation out;
    out.prompt_ids = prompt.told().ids;
    contrastive_search(model, tokenizer, prompt, params, on_token, cancel, out);
    return out;
  }
  if (params.num_beams > 1) {
    Generation out;
    out.prompt_ids = prompt.told().ids;
    beam_search(model, tokenizer, prompt, params, cancel, out);
    for (size_t i = 0; on_token && i < out.ids.size(); i++)
      if (!on_token(out.ids[i], out.logprobs[i])) break;
    return out;
  }
  Sequence sequence(model, tokenizer, prompt, params, on_token);
  const std::unique_ptr<KvCache> cache = model.new_cache(sequence.capacity());
  sequence.start(*cache);
  sequence.read_source(cancel);
  const bool on_device = model.samples_on_device() && !sequence.needs_logits();
  std::vector<SamplingRule> rules;
  std::vector<Sampled> sampled;
  Drafts* const drafts = params.draft && prompt.drafts && prompt.drafts->on() ? prompt.drafts : nullptr;
  // As large as a pass with drafts needs, so that decoding allocates nothing.
  const size_t most = drafts ? 1 + kMostDrafts : params.grammar && params.draft ? 2 : 1;
  std::vector<float> logits(on_device ? 0 : static_cast<size_t>(model.info().vocab) * most);
  std::vector<InputRow> rows;
  std::vector<int32_t> logit_rows;
  logit_rows.reserve(most);
  while (!sequence.done()) {
    rows.clear();
    logit_rows.clear();
    const size_t taken = sequence.next_rows(kRowsPerPass, rows, logit_rows);
    if (on_device && taken > 0) {
      rules.resize(taken);
      sampled.resize(taken);
      sequence.sampling_rules(rules);
      model.sample(rows, logit_rows, rules, sampled, cancel);
      sequence.take_sampled(sampled);
      continue;
    }
    const std::span<const int32_t> vocab_subset = sequence.vocab_subset();
    const size_t count = taken * (vocab_subset.empty() ? static_cast<size_t>(model.info().vocab) : vocab_subset.size());
    if (logits.size() < count) logits.resize(count);
    const auto start = std::chrono::steady_clock::now();
    model.forward(rows, logit_rows, logits.data(), cancel, vocab_subset);
    if (drafts && taken > 0 && vocab_subset.empty()) drafts->took(rows.size(), ms_since(start));
    if (taken > 0) sequence.take_logits(std::span(logits).first(count));
  }
  return std::move(sequence.result());
}

}  // namespace ke
