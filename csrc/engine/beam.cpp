// Beam search with the scoring, candidate counts and stopping rule of transformers (generation/utils.py _beam_search,
// early_stopping=False), so that the best beam is the same sequence.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "engine/generate.h"
#include "backend/logits.h"

namespace ke {
namespace {

struct Hypothesis {
  std::vector<int32_t> ids;  // the answer so far
  std::vector<float> logprobs;
  std::vector<TokenLogprob> top;
  float score = 0;  // running: sum of log-probabilities; finished: divided by length^length_penalty
  bool finished = false;
};

struct Beam : Hypothesis {
  std::unique_ptr<KvCache> cache;
  std::unique_ptr<Constraint> constraint;
  std::vector<float> logits;
};

struct Candidate {
  float score;
  size_t beam;
  int32_t id;
  bool ends;
};

bool better(const Candidate& a, const Candidate& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.beam != b.beam ? a.beam < b.beam : a.id < b.id;
}

class BeamSearch {
 public:
  BeamSearch(const Model& model, const Prompt& prompt, const GenerateParams& params, const CancelToken* cancel)
      : model_(model), prompt_(prompt), params_(params), cancel_(cancel), width_(params.num_beams) {}

  void run(std::unique_ptr<Constraint> constraint, Generation& out) {
    const auto start = std::chrono::steady_clock::now();
    const auto ms = [](auto t) {
      return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - t).count();
    };
    capacity_ = static_cast<int64_t>(prompt_.ids.size()) + params_.max_tokens;
    Beam first;
    first.cache = model_.new_cache(capacity_);
    first.constraint = std::move(constraint);
    first.logits = prefill(model_, prompt_, *first.cache, cancel_, &out.reused);
    running_.push_back(std::move(first));
    finished_.assign(width_, Hypothesis());
    out.prefill_ms = ms(start);

    const auto decode_start = std::chrono::steady_clock::now();
    for (length_ = 1; step(); length_++) {
    }
    const Hypothesis& best = finished_[0];
    out.ids = best.ids;
    out.logprobs = best.logprobs;
    out.top = best.top;
    const bool eos = !best.ids.empty() && best.ids.back() == model_.info().eos;
    out.reason = eos ? FinishReason::Eos : choice_made_ ? FinishReason::Choice : FinishReason::Length;
    out.decode_ms = ms(decode_start);
  }

 private:
  // One more token for every beam; false when the search is over. length_ is the answer's length with that token.
  bool step() {
    std::vector<Candidate> top = candidates();
    finish(top);
    const bool all_end = std::all_of(top.begin(), top.end(), [](const Candidate& c) { return c.ends; });
    if (all_end) return false;
    std::vector<Candidate> next;
    for (const Candidate& c : top)
      if (!c.ends && static_cast<int>(next.size()) < width_) next.push_back(c);
    // A running beam can only get worse per token: stop when the best of them is no better than the worst finished.
    const bool full = std::all_of(finished_.begin(), finished_.end(), [](const Hypothesis& h) { return h.finished; });
    if (full && next[0].score / penalty() <= finished_.back().score) return false;
    advance(next);
    return true;
  }

  float penalty() const { return static_cast<float>(std::pow(static_cast<double>(length_), params_.length_penalty)); }

  // The 2 * width best continuations of all beams, best first.
  std::vector<Candidate> candidates() {
    std::vector<Candidate> all;
    const size_t keep = 2 * static_cast<size_t>(width_);
    for (size_t b = 0; b < running_.size(); b++) {
      const Beam& beam = running_[b];
      std::vector<int32_t> sequence = prompt_.ids;
      sequence.insert(sequence.end(), beam.ids.begin(), beam.ids.end());
      scores_ = beam.logits;
      const float top = scores_[argmax(scores_)];
      const float log_sum = top + static_cast<float>(std::log(sum_exp(scores_, top)));
      for (float& s : scores_) s = s - log_sum;
      penalize(scores_, sequence, params_.sampler.repetition_penalty, seen_);
      rules_.apply(scores_, sequence, params_.sampler.no_repeat_ngram_size, beam.constraint.get());
      for (size_t i = 0; i < scores_.size(); i++) {
        const Candidate c{scores_[i] + beam.score, b, static_cast<int32_t>(i), false};
        if (c.score == -std::numeric_limits<float>::infinity()) continue;
        if (all.size() == keep && !better(c, all.back())) continue;
        all.insert(std::upper_bound(all.begin(), all.end(), c, better), c);
        if (all.size() > keep) all.pop_back();
      }
    }
    for (Candidate& c : all) c.ends = c.id == model_.info().eos || length_ == params_.max_tokens || ends_choice(c);
    return all;
  }

  bool ends_choice(const Candidate& c) {
    if (!running_[c.beam].constraint) return false;
    std::unique_ptr<Constraint> after = running_[c.beam].constraint->clone();
    after->accept(c.id);
    choice_made_ = choice_made_ || after->complete();
    return after->complete();
  }

  // Merges those of the first `width` candidates that end into the finished ones, best first.
  void finish(const std::vector<Candidate>& top) {
    for (size_t i = 0; i < top.size() && i < static_cast<size_t>(width_); i++) {
      if (!top[i].ends) continue;
      Hypothesis h = extend(top[i]);
      h.score = top[i].score / penalty();
      h.finished = true;
      // Before every place that nothing has taken, however low a negative length penalty makes the score.
      const auto at =
          std::upper_bound(finished_.begin(), finished_.end(), h,
                           [](const Hypothesis& a, const Hypothesis& b) { return !b.finished || a.score > b.score; });
      finished_.insert(at, std::move(h));
      finished_.pop_back();
    }
  }

  Hypothesis extend(const Candidate& c) const {
    const Beam& beam = running_[c.beam];
    Hypothesis h;
    h.ids = beam.ids;
    h.ids.push_back(c.id);
    h.logprobs = beam.logprobs;
    h.top = beam.top;
    if (params_.top_logprobs > 0) append_top(beam.logits, static_cast<size_t>(params_.top_logprobs), h.top);
    const bool scored = params_.logprobs || params_.top_logprobs > 0 || model_.info().is_scored(c.id, beam.ids);
    h.logprobs.push_back(scored ? static_cast<float>(log_probability(beam.logits, c.id))
                                : std::numeric_limits<float>::quiet_NaN());
    h.score = c.score;
    return h;
  }

  // Makes the chosen continuations the running beams and computes their logits in one pass.
  void advance(const std::vector<Candidate>& next) {
    const int64_t stored = static_cast<int64_t>(prompt_.ids.size()) + length_ - 1;  // positions in the caches
    std::vector<Beam> beams(next.size());
    for (size_t i = 0; i < next.size(); i++) {
      static_cast<Hypothesis&>(beams[i]) = extend(next[i]);
      if (running_[next[i].beam].constraint) {
        beams[i].constraint = running_[next[i].beam].constraint->clone();
        beams[i].constraint->accept(next[i].id);
      }
    }
    // Copies first, while every parent still holds its cache; then the last child of each parent takes it over.
    std::vector<size_t> heir(running_.size(), next.size());
    for (size_t i = 0; i < next.size(); i++) heir[next[i].beam] = i;
    std::vector<std::unique_ptr<KvCache>> unused = std::move(spare_);
    for (size_t b = 0; b < running_.size(); b++)
      if (heir[b] == next.size()) unused.push_back(std::move(running_[b].cache));
    for (size_t i = 0; i < next.size(); i++) {
      if (heir[next[i].beam] == i) continue;
      if (unused.empty()) unused.push_back(model_.new_cache(capacity_));
      beams[i].cache = std::move(unused.back());
      unused.pop_back();
      model_.copy_cache(*running_[next[i].beam].cache, *beams[i].cache, 0, stored);
    }
    for (size_t i = 0; i < next.size(); i++)
      if (heir[next[i].beam] == i) beams[i].cache = std::move(running_[next[i].beam].cache);
    spare_ = std::move(unused);

    std::vector<InputRow> rows;
    std::vector<int32_t> logit_rows;
    for (size_t i = 0; i < beams.size(); i++) {
      rows.push_back(prompt_.row_behind(beams[i].ids.back(), static_cast<size_t>(stored), beams[i].cache.get()));
      logit_rows.push_back(static_cast<int32_t>(i));
    }
    std::vector<float> logits(beams.size() * model_.info().vocab);
    model_.forward(rows, logit_rows, logits.data(), cancel_);
    check_finite(logits);
    for (size_t i = 0; i < beams.size(); i++)
      beams[i].logits.assign(logits.begin() + i * model_.info().vocab, logits.begin() + (i + 1) * model_.info().vocab);
    running_ = std::move(beams);
  }

  const Model& model_;
  const Prompt& prompt_;
  const GenerateParams& params_;
  const CancelToken* cancel_;
  const int width_;
  int64_t capacity_ = 0;
  int32_t length_ = 0;
  bool choice_made_ = false;
  std::vector<Beam> running_;         // best first
  std::vector<Hypothesis> finished_;  // width_ places, best first
  std::vector<std::unique_ptr<KvCache>> spare_;
  Rules rules_{model_.info().never};
  std::vector<float> scores_;
  std::vector<bool> seen_;
};

}  // namespace

void beam_search(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt, const GenerateParams& params,
                 const CancelToken* cancel, Generation& out) {
  BeamSearch search(model, prompt, params, cancel);
  search.run(make_constraint(model, tokenizer, prompt, params), out);
}

}  // namespace ke
