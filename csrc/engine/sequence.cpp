#include "engine/sequence.h"

#include <algorithm>
#include <limits>

#include "backend/logits.h"
#include "base/error.h"
#include "engine/prefix_cache.h"
#include "engine/source.h"

namespace ke {

constexpr double kNoLogprob = std::numeric_limits<double>::quiet_NaN();

static GenerateParams all_scored(GenerateParams params) {
  params.logprobs |= params.top_logprobs > 0;
  return params;
}

Sequence::Sequence(const Model& model, const Tokenizer& tokenizer, Prompt prompt, const GenerateParams& params,
                   const OnToken& on_token)
    : model_(model),
      tokenizer_(tokenizer),
      stop_(tokenizer, params.stop),
      prompt_(std::move(prompt)),
      params_(all_scored(params)),
      on_token_(on_token),
      rules_(model.info().never),
      sampler_(params.sampler) {
  check_params(params_);
  check_context(model_, prompt_, params_.max_tokens);
  constraint_ = make_constraint(model_, tokenizer_, prompt_, params_);
  ids_.reserve(static_cast<size_t>(capacity()));
  out_.ids.reserve(static_cast<size_t>(params_.max_tokens));
  out_.logprobs.reserve(static_cast<size_t>(params_.max_tokens));
  vocab_subset_.reserve(16);
  drafts_.reserve(kMostDrafts);
  ids_ = prompt_.ids;
  out_.prompt_ids = prompt_.told().ids;
  find_vocab_subset();
}

void Sequence::start(KvCache& cache) {
  KE_ASSERT(!cache_ && cache.capacity >= capacity());
  started_ = std::chrono::steady_clock::now();
  cache_ = &cache;
}

void Sequence::read_source(const CancelToken* cancel) { out_.reused = ke::read_source(model_, prompt_, cancel); }

size_t Sequence::next_rows(size_t most, std::vector<InputRow>& rows, std::vector<int32_t>& logit_rows, DraftRoom room) {
  KE_ASSERT(cache_ && !done_ && most >= 1 && fed_ < static_cast<int64_t>(ids_.size()));
  if (fed_ == 0) {
    fed_ = static_cast<int64_t>(restore_prefix(model_, prompt_, *cache_));
    out_.reused += static_cast<size_t>(fed_);
  }
  const size_t end = std::min(ids_.size(), static_cast<size_t>(fed_) + most);
  for (size_t i = static_cast<size_t>(fed_); i < end; i++) {
    if (i < prompt_.ids.size())
      rows.push_back(prompt_.row(i, cache_));
    else
      rows.push_back(prompt_.row_behind(ids_[i], i, cache_));
  }
  most -= end - static_cast<size_t>(fed_);
  fed_ = static_cast<int64_t>(end);
  if (end < ids_.size()) return 0;
  logit_rows.push_back(static_cast<int32_t>(rows.size()) - 1);
  draft(most, room);
  for (size_t i = 0; i < drafts_.size(); i++) {
    logit_rows.push_back(static_cast<int32_t>(rows.size()));
    rows.push_back(prompt_.row_behind(drafts_[i], end + i, cache_));
  }
  return 1 + drafts_.size();
}

void Sequence::draft(size_t most, DraftRoom room) {
  drafts_.clear();
  if (!params_.draft) return;
  const size_t left = static_cast<size_t>(params_.max_tokens) - out_.ids.size() - 1;  // behind the next token
  most = std::min({most, kMostDrafts, left});
  if (constraint_) constraint_->draft(drafts_, most);
  room.drafts = std::min(room.drafts, most);
  // Of few tokens that may come one is found at little cost.
  const bool chooses = !params_.choices.empty() || (drafts_.empty() && !vocab_subset_.empty());
  if (prompt_.drafts && prompt_.drafts->on() && !chooses)
    prompt_.drafts->extend(ids_, params_.sampler.no_repeat_ngram_size, room, drafts_);
  out_.drafted += static_cast<int32_t>(drafts_.size());
  if (!drafts_.empty()) vocab_subset_.clear();  // the rows of drafts need the whole vocabulary
}

void Sequence::learn(int32_t id) {
  if (params_.draft && params_.choices.empty() && prompt_.drafts && prompt_.drafts->on())
    prompt_.drafts->learn(ids_, params_.sampler.no_repeat_ngram_size, id);
}

void Sequence::sampling_rules(std::span<SamplingRule> rules) {
  KE_ASSERT(rules.size() == 1 + drafts_.size());
  const size_t length = ids_.size();
  std::unique_ptr<Constraint> ahead;
  for (size_t i = 0; i < rules.size(); i++) {
    if (i > 0) {
      if (!ahead && constraint_) ahead = constraint_->clone();
      if (ahead) ahead->accept(drafts_[i - 1]);
      ids_.push_back(drafts_[i - 1]);
    }
    const auto allowed = rules_.allowed(static_cast<int32_t>(model_.info().vocab), ids_,
                                        params_.sampler.no_repeat_ngram_size, ahead ? ahead.get() : constraint_.get());
    rules[i].allowed.assign(allowed.begin(), allowed.end());
    rules[i].sampling = sampler_.sampling();
    rules[i].random = sampler_.random(i);
  }
  ids_.resize(length);
}

template <class Decide>
void Sequence::take_rows(Decide decide_row) {
  KE_ASSERT(!done_ && fed_ == static_cast<int64_t>(ids_.size()));
  out_.passes++;
  for (size_t i = 0;; i++) {
    decide_row(i);
    const bool right = !done_ && i < drafts_.size() && ids_[static_cast<size_t>(fed_)] == drafts_[i];
    if (!right || fed_ + 1 < static_cast<int64_t>(ids_.size())) return;
    fed_++;  // the draft's row is the row of this token
    out_.accepted++;
  }
}

void Sequence::take_logits(std::span<const float> logits) {
  const size_t each = logits.size() / (1 + drafts_.size());
  KE_ASSERT(logits.size() == each * (1 + drafts_.size()));
  take_rows([&](size_t i) { decide(logits.subspan(i * each, each)); });
}

void Sequence::take_sampled(std::span<const Sampled> sampled) {
  KE_ASSERT(sampled.size() == 1 + drafts_.size() && !needs_logits());
  take_rows([&](size_t i) { decide(sampled[i]); });
}

void Sequence::begin() {
  if (!out_.ids.empty()) return;
  save_prefix(model_, prompt_, prompt_.ids, *cache_);
  if (params_.draft && prompt_.drafts && prompt_.drafts->on()) note_prompt();
  out_.prefill_ms = ms_since(started_);
  decoding_ = std::chrono::steady_clock::now();
}

// Its texts, between the images.
void Sequence::note_prompt() {
  const std::span<const int32_t> ids = prompt_.ids;
  size_t begin = 0;
  for (const Prompt::PlacedImage& image : prompt_.images) {
    prompt_.drafts->note(ids.subspan(begin, image.begin - begin));
    begin = image.end;
  }
  prompt_.drafts->note(ids.subspan(begin));
}

void Sequence::decide(std::span<const float> logits) {
  check_finite(logits);
  begin();
  if (params_.top_logprobs > 0) append_top(logits, static_cast<size_t>(params_.top_logprobs), out_.top);
  if (params_.hash_logits) out_.logits_hash = hash_bits(logits, out_.logits_hash);
  if (logits.size() == static_cast<size_t>(model_.info().vocab)) {
    scores_.assign(logits.begin(), logits.end());
  } else {
    KE_ASSERT(logits.size() == vocab_subset_.size());
    scores_.assign(static_cast<size_t>(model_.info().vocab), -std::numeric_limits<float>::infinity());
    for (size_t i = 0; i < vocab_subset_.size(); i++) scores_[vocab_subset_[i]] = logits[i];
  }
  penalize(scores_, ids_, params_.sampler.repetition_penalty, seen_);
  rules_.apply(scores_, ids_, params_.sampler.no_repeat_ngram_size, constraint_.get());
  const int32_t id = sampler_.sample(scores_);
  add_and_forced(id, scored(id) ? log_probability(logits, id) : kNoLogprob);
}

void Sequence::decide(const Sampled& sampled) {
  check_finite(sampled);
  begin();
  sampler_.skip();
  add_and_forced(sampled.id, scored(sampled.id) ? sampled.log_probability() : kNoLogprob);
}

// The token, and those that follow because they alone may: their logits would change nothing; only their
// log-probabilities need them.
void Sequence::add_and_forced(int32_t id, double logprob) {
  add(id, static_cast<float>(logprob));
  for (find_vocab_subset(); !done_ && vocab_subset_.size() == 1; find_vocab_subset()) {
    sampler_.skip();
    add(vocab_subset_[0], static_cast<float>(kNoLogprob));
  }
}

void Sequence::find_vocab_subset() {
  vocab_subset_.clear();  // log-probabilities need the whole vocabulary
  const auto& grounding = model_.info().grounding;
  if (constraint_ && !params_.logprobs && !params_.hash_logits && !(grounding && grounding->in_phrase(out_.ids)))
    constraint_->next_set(vocab_subset_);
  for (int32_t id : vocab_subset_)
    if (grounding && grounding->is_location(id)) return vocab_subset_.clear();
}

void Sequence::add(int32_t id, float logprob) {
  learn(id);
  out_.ids.push_back(id);
  out_.logprobs.push_back(logprob);
  ids_.push_back(id);
  if (constraint_) constraint_->accept(id);

  const bool go_on = !on_token_ || on_token_(id, logprob);
  if (constraint_ && constraint_->complete()) return finish(FinishReason::Choice);
  if (id == model_.info().eos) return finish(FinishReason::Eos);
  if (const std::string* stop = stop_.push(id)) {
    out_.stop_string = *stop;
    return finish(FinishReason::StopString);
  }
  if (!go_on) return finish(FinishReason::Callback);
  if (static_cast<int32_t>(out_.ids.size()) == params_.max_tokens) finish(FinishReason::Length);
}

void Sequence::finish(FinishReason reason) {
  out_.reason = reason;
  save_prefix(model_, prompt_, std::span(ids_).first(static_cast<size_t>(fed_)), *cache_);
  out_.decode_ms = ms_since(decoding_);
  done_ = true;
}

}  // namespace ke
