// Contrastive search, and MAGIC's rule on top of it: of the k likeliest tokens v the one is taken for which
//   (1 - degeneration_penalty) p(v) - degeneration_penalty max_j cos(h_v, h_j) + image_weight f(v)
// is largest. p: probabilities among the tokens that the rules allow. h: hidden states of the last layer behind the
// last norm; h_v is that of v put behind the sequence, j goes over all earlier positions, the prompt's among them. f:
// how well the answer with v fits the image, a softmax over the k tokens.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "backend/logits.h"
#include "base/limits.h"
#include "engine/generate.h"
#include "engine/source.h"
#include "text/stop_finder.h"

namespace ke {
namespace {

constexpr size_t kTogether = 8;  // candidates in one pass, each with a copy of the sequence's keys and values

double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); i++) sum += double{a[i]} * b[i];
  return sum;
}

// Divided by its length; a vector of zeros stays.
void make_unit(std::span<float> v) {
  const double length = std::sqrt(dot(v, v));
  if (length == 0) return;
  for (float& x : v) x = static_cast<float>(x / length);
}

void softmax(std::vector<double>& values) {
  const double top = *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (double& v : values) sum += v = std::exp(v - top);
  for (double& v : values) v /= sum;
}

class ContrastiveSearch {
 public:
  ContrastiveSearch(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt, const GenerateParams& params,
                    const OnToken& on_token, const CancelToken* cancel)
      : model_(model),
        prompt_(prompt),
        params_(params),
        on_token_(on_token),
        cancel_(cancel),
        constraint_(make_constraint(model, tokenizer, prompt, params)),
        stop_(tokenizer, params.stop),
        vocab_(static_cast<size_t>(model.info().vocab)),
        width_(static_cast<size_t>(model.info().width)),
        k_(static_cast<size_t>(params.sampler.top_k)) {}

  void run(Generation& out) {
    using Clock = std::chrono::steady_clock;
    const auto ms = [](Clock::time_point t) {
      return std::chrono::duration<double, std::milli>(Clock::now() - t).count();
    };
    const auto start = Clock::now();
    ids_ = prompt_.ids;
    begin(out);
    out.prefill_ms = ms(start);
    const auto decoding = Clock::now();
    while (step(out)) {
    }
    out.decode_ms = ms(decoding);
  }

 private:
  struct Candidate {
    int32_t id;
    double p, fit;
  };
  // Keys and values of a prompt's sequence with the answer so far.
  struct Blind {
    std::unique_ptr<KvCache> cache;
    std::vector<float> logits;
  };

  bool contrasts() const { return params_.degeneration_penalty > 0; }
  int64_t capacity(const Prompt& prompt) const { return static_cast<int64_t>(prompt.ids.size()) + params_.max_tokens; }

  void begin(Generation& out) {
    slots_.push_back(model_.new_cache(capacity(prompt_)));
    if (contrasts()) {
      out.reused = read_source(model_, prompt_, cancel_);
      prefill_with_states();
      const size_t n = std::min(std::min(k_, vocab_), kTogether);
      while (slots_.size() < n) {
        slots_.push_back(model_.new_cache(capacity(prompt_)));
        model_.copy_cache(*slots_[0], *slots_.back(), 0, static_cast<int64_t>(prompt_.ids.size()));
      }
      if (std::min(k_, vocab_) > kTogether) kept_ = model_.new_cache(capacity(prompt_));
    } else {
      logits_ = prefill(model_, prompt_, *slots_[0], cancel_, &out.reused);
    }
    if (params_.blind) {
      blind_.cache = model_.new_cache(capacity(*params_.blind));
      blind_.logits = prefill(model_, *params_.blind, *blind_.cache, cancel_, nullptr);
    }
  }

  // All rows are computed, also where their keys and values are kept: their states are not.
  void prefill_with_states() {
    logits_.resize(vocab_);
    for (size_t begin = 0, n = prompt_.ids.size(); begin < n; begin += kRowsPerPass) {
      const size_t end = std::min(n, begin + kRowsPerPass);
      std::vector<InputRow> rows;
      std::vector<int32_t> all;
      for (size_t i = begin; i < end; i++) {
        all.push_back(static_cast<int32_t>(rows.size()));
        rows.push_back(prompt_.row(i, slots_[0].get()));
      }
      states_.resize(end * width_);
      model_.forward_states(rows, all, nullptr, states_.data() + begin * width_, cancel_);
      // The last row again, for its logits: those of all rows would take the vocabulary's size for each.
      if (end == n) {
        std::vector<float> again(width_);
        model_.forward_states({rows.back()}, {0}, logits_.data(), again.data(), cancel_);
      }
    }
    for (size_t at = 0; at < states_.size(); at += width_) make_unit(std::span(states_).subspan(at, width_));
  }

  // The next token; false when the answer is over.
  bool step(Generation& out) {
    check_finite(logits_);
    if (params_.top_logprobs > 0) append_top(logits_, static_cast<size_t>(params_.top_logprobs), out.top);
    std::vector<Candidate> candidates = find_candidates();
    if (params_.image_weight > 0) judge(candidates, out.ids);
    const size_t best = contrasts() ? choose_by_state(candidates) : choose(candidates);
    const int32_t id = candidates[best].id;
    const bool scored = params_.logprobs || params_.top_logprobs > 0 || model_.info().is_scored(id, out.ids);
    const float logprob =
        scored ? static_cast<float>(log_probability(logits_, id)) : std::numeric_limits<float>::quiet_NaN();
    out.passes++;
    const size_t position = ids_.size();
    out.ids.push_back(id);
    out.logprobs.push_back(logprob);
    ids_.push_back(id);
    if (constraint_) constraint_->accept(id);
    const bool go_on = !on_token_ || on_token_(id, logprob);
    if (ends(id, go_on, out)) return false;
    advance(id, position, out.ids.size());
    return true;
  }

  bool ends(int32_t id, bool go_on, Generation& out) {
    if (id == model_.info().eos) {
      out.reason = FinishReason::Eos;
    } else if (const std::string* stop = stop_.push(id)) {
      out.stop_string = *stop;
      out.reason = FinishReason::StopString;
    } else if (!go_on) {
      out.reason = FinishReason::Callback;
    } else if (static_cast<int32_t>(out.ids.size()) == params_.max_tokens) {
      out.reason = FinishReason::Length;
    } else {
      return false;
    }
    return true;
  }

  // The likeliest tokens that may come, at most k, best first.
  std::vector<Candidate> find_candidates() {
    scores_ = logits_;
    penalize(scores_, ids_, params_.sampler.repetition_penalty, seen_);
    rules_.apply(scores_, ids_, params_.sampler.no_repeat_ngram_size, constraint_.get());
    const float top = scores_[argmax(scores_)];
    double sum = 0;
    std::vector<int32_t> order;
    for (size_t i = 0; i < vocab_; i++) {
      if (scores_[i] == -std::numeric_limits<float>::infinity()) continue;
      sum += std::exp(double{scores_[i]} - top);
      order.push_back(static_cast<int32_t>(i));
    }
    const size_t n = std::min(k_, order.size());
    std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(n), order.end(), [&](int32_t a, int32_t b) {
      return scores_[static_cast<size_t>(a)] != scores_[static_cast<size_t>(b)]
                 ? scores_[static_cast<size_t>(a)] > scores_[static_cast<size_t>(b)]
                 : a < b;
    });
    std::vector<Candidate> out;
    for (size_t i = 0; i < n; i++)
      out.push_back({order[i], std::exp(double{scores_[static_cast<size_t>(order[i])]} - top) / sum, 0});
    return out;
  }

  // How well the answer with each candidate fits the image.
  void judge(std::vector<Candidate>& candidates, const std::vector<int32_t>& answer) {
    std::vector<double> fits;
    if (params_.blind) {  // what came before is the same for all: only the candidates' own part counts
      for (const Candidate& c : candidates)
        fits.push_back(log_probability(logits_, c.id) - log_probability(blind_.logits, c.id));
    } else {
      std::vector<int32_t> ids;
      for (const Candidate& c : candidates) ids.push_back(c.id);
      fits = params_.relevance(answer, ids);
      KE_CHECK(fits.size() == ids.size(), InvalidRequest, "guide: expected a score for each of ", ids.size(),
               " texts, got ", fits.size());
      for (const double fit : fits)
        KE_CHECK(std::isfinite(fit), InvalidRequest, "guide: expected finite scores, got ", fit);
    }
    softmax(fits);
    for (size_t i = 0; i < fits.size(); i++) candidates[i].fit = fits[i];
  }

  // Without the penalty.
  double plain_score(const Candidate& c) const {
    return (1 - double{params_.degeneration_penalty}) * c.p + double{params_.image_weight} * c.fit;
  }

  size_t choose(const std::vector<Candidate>& candidates) const {
    size_t best = 0;
    for (size_t i = 1; i < candidates.size(); i++)
      if (plain_score(candidates[i]) > plain_score(candidates[best])) best = i;
    return best;
  }

  // Puts each candidate behind the sequence; the caches then hold the best one there, and next_logits_ and states_ are
  // its.
  size_t choose_by_state(const std::vector<Candidate>& candidates) {
    const size_t position = ids_.size();
    const int64_t at = static_cast<int64_t>(position);
    size_t best = 0;
    double best_score = -std::numeric_limits<double>::infinity();
    const KvCache* holder = nullptr;
    std::vector<float> logits, states, best_state;
    for (size_t from = 0; from < candidates.size(); from += slots_.size()) {
      const size_t n = std::min(slots_.size(), candidates.size() - from);
      std::vector<InputRow> rows;
      std::vector<int32_t> all;
      for (size_t i = 0; i < n; i++) {
        all.push_back(static_cast<int32_t>(i));
        rows.push_back(prompt_.row_behind(candidates[from + i].id, position, slots_[i].get()));
      }
      logits.resize(n * vocab_);
      states.resize(n * width_);
      model_.forward_states(rows, all, logits.data(), states.data(), cancel_);
      for (size_t i = 0; i < n; i++) {
        const std::span<float> state = std::span(states).subspan(i * width_, width_);
        make_unit(state);
        const double score = plain_score(candidates[from + i]) - params_.degeneration_penalty * likest(state);
        if (!(score > best_score)) continue;
        best = from + i;
        best_score = score;
        holder = slots_[i].get();
        best_state.assign(state.begin(), state.end());
        next_logits_.assign(logits.begin() + static_cast<ptrdiff_t>(i * vocab_),
                            logits.begin() + static_cast<ptrdiff_t>((i + 1) * vocab_));
      }
      KE_CHECK(holder, ModelCorrupt, "the model made a hidden state that is not finite");
      if (kept_ && holder != kept_.get()) {  // the next pass overwrites it
        model_.copy_cache(*holder, *kept_, at, at + 1);
        holder = kept_.get();
      }
    }
    for (const std::unique_ptr<KvCache>& slot : slots_)
      if (slot.get() != holder) model_.copy_cache(*holder, *slot, at, at + 1);
    states_.insert(states_.end(), best_state.begin(), best_state.end());
    return best;
  }

  // The largest cosine to an earlier state.
  double likest(std::span<const float> state) const {
    double most = -1;
    for (size_t at = 0; at < states_.size(); at += width_)
      most = std::max(most, dot(state, std::span(states_).subspan(at, width_)));
    return most;
  }

  // Makes logits_ those behind the token that was chosen.
  void advance(int32_t id, size_t position, size_t answered) {
    std::vector<InputRow> rows;
    if (contrasts())
      std::swap(logits_, next_logits_);
    else
      rows.push_back(prompt_.row_behind(id, position, slots_[0].get()));
    if (params_.blind)
      rows.push_back(params_.blind->row_behind(id, params_.blind->ids.size() + answered - 1, blind_.cache.get()));
    if (rows.empty()) return;
    std::vector<int32_t> all;
    for (size_t i = 0; i < rows.size(); i++) all.push_back(static_cast<int32_t>(i));
    std::vector<float> logits(rows.size() * vocab_);
    model_.forward(rows, all, logits.data(), cancel_);
    if (params_.blind) blind_.logits.assign(logits.end() - static_cast<ptrdiff_t>(vocab_), logits.end());
    if (params_.blind) check_finite(blind_.logits);
    if (!contrasts()) logits_.assign(logits.begin(), logits.begin() + static_cast<ptrdiff_t>(vocab_));
  }

  const Model& model_;
  const Prompt& prompt_;
  const GenerateParams& params_;
  const OnToken& on_token_;
  const CancelToken* cancel_;
  std::unique_ptr<Constraint> constraint_;  // may be nullptr
  StopFinder stop_;
  const size_t vocab_, width_, k_;
  Rules rules_{model_.info().never};
  std::vector<int32_t> ids_;                     // prompt and answer
  std::vector<float> logits_, next_logits_;      // behind ids_; behind the token that is being chosen
  std::vector<float> states_;                    // (positions of ids_, width), each of length 1, where they count
  std::vector<std::unique_ptr<KvCache>> slots_;  // all hold ids_
  std::unique_ptr<KvCache> kept_;                // of the best candidate's position alone; or nullptr
  Blind blind_;
  std::vector<float> scores_;
  std::vector<bool> seen_;
};

}  // namespace

void check_contrastive(const GenerateParams& p) {
  using namespace limits;
  KE_CHECK(p.degeneration_penalty >= 0 && p.degeneration_penalty <= 1, InvalidRequest,
           "degeneration_penalty must be in 0..1, got ", p.degeneration_penalty);
  KE_CHECK(p.image_weight >= 0 && p.image_weight <= kMaxImageWeight, InvalidRequest, "image_weight must be in 0..",
           kMaxImageWeight, ", got ", p.image_weight);
  if (!p.contrastive()) return;
  const char* const name = p.degeneration_penalty > 0 ? "degeneration_penalty" : "image_weight";
  KE_CHECK(p.sampler.temperature == 0 && p.num_beams == 1, InvalidRequest, name,
           " needs temperature 0 and num_beams 1, got ", p.sampler.temperature, " and ", p.num_beams);
  KE_CHECK(p.choices.empty(), InvalidRequest, name, " and choices contradict each other: choose one");
  KE_CHECK(!p.hash_logits, InvalidRequest, name, ": hash_logits is for plain decoding");
  KE_CHECK(p.sampler.top_k >= 1 && p.sampler.top_k <= kMaxCandidates, InvalidRequest,
           "top_k, the number of candidates, must be in 1..", kMaxCandidates, " with ", name, ", got ",
           p.sampler.top_k);
  KE_CHECK((p.image_weight > 0) == (p.blind || p.relevance), InvalidRequest,
           "image_weight needs a guide, and a guide image_weight above 0");
}

void contrastive_search(const Model& model, const Tokenizer& tokenizer, const Prompt& prompt,
                        const GenerateParams& params, const OnToken& on_token, const CancelToken* cancel,
                        Generation& out) {
  if (params.blind) check_context(model, *params.blind, params.max_tokens);
  ContrastiveSearch search(model, tokenizer, prompt, params, on_token, cancel);
  search.run(out);
}

}  // namespace ke
