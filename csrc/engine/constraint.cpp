#include "engine/constraint.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace ke {
namespace {

constexpr IdRange one(int32_t id) { return {id, id + 1}; }

class LocationGrammar : public Constraint {
 public:
  LocationGrammar(const Grounding& grounding, int32_t eos) : f_(grounding), eos_(eos) {}
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

  void allowed(int32_t vocab, std::vector<IdRange>& ranges) const override {
    const int32_t bins = static_cast<int32_t>(f_.bins);
    const IdRange cells{f_.first_location, f_.first_location + bins * bins};
    switch (state_) {
      case State::Text:
        return all_but(
            std::array{cells, one(f_.phrase_end), one(f_.object_begin), one(f_.object_end), one(f_.delimiter)}, vocab,
            ranges);
      case State::AfterPhrase:
        return all_but(std::array{cells, one(f_.phrase_end), one(f_.object_end), one(f_.delimiter)}, vocab, ranges);
      case State::PhraseStart:  // an empty phrase names nothing
        return all_but(std::array{cells, one(f_.phrase_begin), one(f_.phrase_end), one(f_.object_begin),
                                  one(f_.object_end), one(f_.delimiter), one(eos_)},
                       vocab, ranges);
      case State::Phrase:
        return all_but(std::array{cells, one(f_.phrase_begin), one(f_.object_begin), one(f_.object_end),
                                  one(f_.delimiter), one(eos_)},
                       vocab, ranges);
      case State::First:
        return ranges.push_back(cells);
      case State::Second:
        for (int32_t y = upper_left_ / bins; y < bins; y++)
          ranges.push_back({cells.begin + y * bins + upper_left_ % bins, cells.begin + (y + 1) * bins});
        return;
      case State::AfterPair:
        ranges.push_back(one(std::min(f_.object_end, f_.delimiter)));
        return ranges.push_back(one(std::max(f_.object_end, f_.delimiter)));
    }
  }

  void next_set(std::vector<int32_t>& ids) const override {
    if (state_ != State::AfterPair) return;
    ids.push_back(std::min(f_.object_end, f_.delimiter));
    ids.push_back(std::max(f_.object_end, f_.delimiter));
  }

  // What a model that was trained on such text all but always says (docs/batching.md has how often nano does).
  void draft(std::vector<int32_t>& ids, size_t most) const override {
    if (most == 0) return;
    if (state_ == State::AfterPhrase) ids.push_back(f_.object_begin);
    if (state_ == State::AfterPair) ids.push_back(f_.object_end);
  }

 private:
  enum class State { Text, PhraseStart, Phrase, AfterPhrase, First, Second, AfterPair };

  // Those of 0 .. vocab - 1 that are in none of `out`.
  template <size_t N>
  static void all_but(std::array<IdRange, N> out, int32_t vocab, std::vector<IdRange>& ranges) {
    std::sort(out.begin(), out.end(), [](const IdRange& a, const IdRange& b) { return a.begin < b.begin; });
    int32_t at = 0;
    for (const IdRange& r : out) {
      if (at < r.begin) ranges.push_back({at, r.begin});
      at = std::max(at, r.end);
    }
    if (at < vocab) ranges.push_back({at, vocab});
  }

  Grounding f_;
  int32_t eos_;
  State state_ = State::Text;
  int32_t upper_left_ = 0;  // cell
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

  void allowed(int32_t, std::vector<IdRange>& ranges) const override {
    std::vector<int32_t> ids;
    next_set(ids);
    for (int32_t id : ids) ranges.push_back(one(id));
  }

  void next_set(std::vector<int32_t>& ids) const override {
    for (const auto& c : *choices_)
      if (continues(c)) ids.push_back(next_of(c));
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  }

  // The rest of the only choice that is left, but for the token that makes it whole.
  void draft(std::vector<int32_t>& ids, size_t most) const override {
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

std::unique_ptr<Constraint> location_grammar(const Grounding& grounding, int32_t eos) {
  return std::make_unique<LocationGrammar>(grounding, eos);
}

std::unique_ptr<Constraint> one_of(std::vector<std::vector<int32_t>> choices, int32_t eos) {
  KE_CHECK(!choices.empty(), InvalidRequest, "choices is empty: expected at least one answer");
  for (const auto& c : choices) KE_CHECK(!c.empty(), InvalidRequest, "a choice is empty: every choice needs some text");
  return std::make_unique<OneOf>(std::move(choices), eos);
}

}  // namespace ke
