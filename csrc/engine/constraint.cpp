#include "engine/constraint.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace ke {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

class LocationGrammar : public Constraint {
 public:
  explicit LocationGrammar(const PromptFormat& format) : f_(format) {}
  std::unique_ptr<Constraint> clone() const override { return std::make_unique<LocationGrammar>(*this); }

  void accept(int32_t id) override {
    if (id == f_.phrase_begin) {
      state_ = State::PhraseStart;
    } else if (id == f_.phrase_end) {
      state_ = State::AfterPhrase;
    } else if (id == f_.object_begin || id == f_.delimiter) {
      state_ = State::First;
    } else if (f_.is_location(id)) {
      state_ = state_ == State::First ? State::Second : State::AfterPair;
      if (state_ == State::Second) upper_left_ = id - f_.first_location;
    } else if (state_ == State::PhraseStart || state_ == State::Phrase) {
      state_ = State::Phrase;
    } else {
      state_ = State::Text;
    }
  }

  void restrict(std::span<float> scores) const override {
    const auto cells = scores.subspan(f_.first_location, f_.location_bins * f_.location_bins);
    switch (state_) {
      case State::Text:
      case State::AfterPhrase:
        std::fill(cells.begin(), cells.end(), kNever);
        for (int32_t id : {f_.phrase_end, f_.object_end, f_.delimiter}) scores[id] = kNever;
        if (state_ == State::Text) scores[f_.object_begin] = kNever;
        break;
      case State::PhraseStart:
      case State::Phrase:
        std::fill(cells.begin(), cells.end(), kNever);
        for (int32_t id : {f_.phrase_begin, f_.object_begin, f_.object_end, f_.delimiter, f_.eos}) scores[id] = kNever;
        if (state_ == State::PhraseStart) scores[f_.phrase_end] = kNever;  // an empty phrase names nothing
        break;
      case State::First:
        keep_only(scores, [&](int32_t id) { return f_.is_location(id); });
        break;
      case State::Second: {
        const int64_t bins = f_.location_bins, x = upper_left_ % bins, y = upper_left_ / bins;
        keep_only(scores, [&](int32_t id) {
          const int64_t cell = id - f_.first_location;
          return f_.is_location(id) && cell % bins >= x && cell / bins >= y;
        });
        break;
      }
      case State::AfterPair:
        keep_only(scores, [&](int32_t id) { return id == f_.object_end || id == f_.delimiter; });
        break;
    }
  }

  void few(std::vector<int32_t>& ids) const override {
    if (state_ != State::AfterPair) return;
    ids.push_back(std::min(f_.object_end, f_.delimiter));
    ids.push_back(std::max(f_.object_end, f_.delimiter));
  }

  // What a model that was trained on such text all but always says (docs/batching.md has how often nano does).
  void likely(std::vector<int32_t>& ids, size_t most) const override {
    if (most == 0) return;
    if (state_ == State::AfterPhrase) ids.push_back(f_.object_begin);
    if (state_ == State::AfterPair) ids.push_back(f_.object_end);
  }

 private:
  enum class State { Text, PhraseStart, Phrase, AfterPhrase, First, Second, AfterPair };

  template <class Allowed>
  static void keep_only(std::span<float> scores, Allowed allowed) {
    for (size_t i = 0; i < scores.size(); i++)
      if (!allowed(static_cast<int32_t>(i))) scores[i] = kNever;
  }

  PromptFormat f_;
  State state_ = State::Text;
  int64_t upper_left_ = 0;
};

class OneOf : public Constraint {
 public:
  OneOf(std::vector<std::vector<int32_t>> choices, int32_t eos)
      : choices_(std::make_shared<std::vector<std::vector<int32_t>>>(std::move(choices))), eos_(eos) {}
  std::unique_ptr<Constraint> clone() const override { return std::make_unique<OneOf>(*this); }

  void accept(int32_t id) override {
    if (id == eos_)
      ended_ = true;
    else
      so_far_.push_back(id);
  }

  void restrict(std::span<float> scores) const override {
    std::vector<std::pair<int32_t, float>> kept;
    for (const auto& c : *choices_) {
      if (!continues(c)) continue;
      const int32_t next = next_of(c);
      kept.push_back({next, scores[next]});
    }
    std::fill(scores.begin(), scores.end(), kNever);
    for (auto [id, score] : kept) scores[id] = score;
  }

  void few(std::vector<int32_t>& ids) const override {
    for (const auto& c : *choices_)
      if (continues(c)) ids.push_back(next_of(c));
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  }

  // The rest of the only choice that is left, but for the token that makes it whole.
  void likely(std::vector<int32_t>& ids, size_t most) const override {
    const std::vector<int32_t>* only = nullptr;
    for (const auto& c : *choices_) {
      if (!continues(c)) continue;
      if (only) return;
      only = &c;
    }
    for (size_t i = so_far_.size(); only && i + 1 < only->size() && most > 0; i++, most--) ids.push_back((*only)[i]);
  }

  bool complete() const override {
    bool whole = ended_, longer = false;
    for (const auto& c : *choices_) {
      if (!continues(c)) continue;
      (c.size() == so_far_.size() ? whole : longer) = true;
    }
    return ended_ || (whole && !longer);
  }

 private:
  int32_t next_of(const std::vector<int32_t>& choice) const {
    return choice.size() == so_far_.size() ? eos_ : choice[so_far_.size()];
  }
  bool continues(const std::vector<int32_t>& choice) const {
    return choice.size() >= so_far_.size() && std::equal(so_far_.begin(), so_far_.end(), choice.begin());
  }

  std::shared_ptr<const std::vector<std::vector<int32_t>>> choices_;
  int32_t eos_;
  std::vector<int32_t> so_far_;
  bool ended_ = false;
};

}  // namespace

std::unique_ptr<Constraint> location_grammar(const PromptFormat& format) {
  return std::make_unique<LocationGrammar>(format);
}

std::unique_ptr<Constraint> one_of(std::vector<std::vector<int32_t>> choices, int32_t eos) {
  KE_CHECK(!choices.empty(), InvalidRequest, "choices is empty: expected at least one answer");
  for (const auto& c : choices) KE_CHECK(!c.empty(), InvalidRequest, "a choice is empty: every choice needs some text");
  return std::make_unique<OneOf>(std::move(choices), eos);
}

}  // namespace ke
