#include "engine/drafts.h"

#include <algorithm>
#include <map>
#include <string>

#include "base/error.h"
#include "engine/sampler.h"
#include "format/utf8.h"
#include "layers/workspace.h"

namespace ke {

static_assert(1 + kMostDrafts <= Workspace::kFewestRows);

constexpr double kTagProbability = 0.95;  // of a draft of the grammar: docs/batching.md has how often nano says them

DraftMode draft_mode_of(std::string_view name, std::string_view what) {
  if (name == "auto") return DraftMode::Auto;
  if (name == "fixed") return DraftMode::Fixed;
  if (name == "off") return DraftMode::Off;
  fail(ErrorCode::InvalidRequest, what, ": expected auto, fixed or off, got ", quoted(name));
}

const char* draft_mode_name(DraftMode mode) {
  return mode == DraftMode::Auto ? "auto" : mode == DraftMode::Fixed ? "fixed" : "off";
}

constexpr size_t kNumbers = 16;  // tags that differ in their digits alone, from so many on, stand for numbers

// Those are of one kind: -1 minus the first of them.
static std::vector<int32_t> kinds_of(const Tokenizer& tokenizer) {
  std::vector<int32_t> kinds(static_cast<size_t>(tokenizer.size()));
  std::map<std::string, std::vector<int32_t>> alike;
  for (int32_t id = 0; id < tokenizer.size(); id++) {
    kinds[static_cast<size_t>(id)] = id;
    if (tokenizer.type(id) != PieceType::Tag) continue;
    std::string stem = tokenizer.piece(id);
    if (std::erase_if(stem, [](char c) { return c >= '0' && c <= '9'; }) > 0) alike[std::move(stem)].push_back(id);
  }
  for (const auto& [stem, ids] : alike)
    for (int32_t id : ids)
      if (ids.size() >= kNumbers) kinds[static_cast<size_t>(id)] = -1 - ids.front();
  return kinds;
}

Drafts::Drafts(const Tokenizer& tokenizer, DraftMode mode) : mode_(mode), table_(kinds_of(tokenizer)) {
  banned_.reserve(64);
}

void Drafts::extend(std::vector<int32_t>& text, int32_t ngram, const DraftRoom& room, std::vector<int32_t>& drafts) {
  const std::lock_guard lock(mutex_);
  const size_t length = text.size(), most = std::min(room.drafts, kMostDrafts);
  double likely = 1, tokens = static_cast<double>(room.answers);
  for (int32_t id : drafts) {
    text.push_back(id);
    likely *= kTagProbability;
    tokens += likely;
  }
  size_t best = drafts.size();
  double best_rate = tokens / cost(room.answers + best);
  while (drafts.size() < most) {
    banned_.clear();
    repeated_ngrams(text, ngram, banned_);
    const auto guess = table_.guess(text, banned_);
    if (!guess) break;
    likely *= guess->probability;
    tokens += likely;
    drafts.push_back(guess->id);
    text.push_back(guess->id);
    const double rate = tokens / cost(room.answers + drafts.size());
    if (rate > best_rate) best = drafts.size(), best_rate = rate;
  }
  drafts.resize(best);
  text.resize(length);
}

void Drafts::learn(std::span<const int32_t> text, int32_t ngram, int32_t id) {
  const std::lock_guard lock(mutex_);
  banned_.clear();
  repeated_ngrams(text, ngram, banned_);
  table_.learn(text, banned_, id);
}

void Drafts::note(std::span<const int32_t> ids) {
  const std::lock_guard lock(mutex_);
  for (size_t i = 1; i < ids.size(); i++) table_.note(ids.first(i), ids[i]);
}

void Drafts::took(size_t rows, double ms) {
  const std::lock_guard lock(mutex_);
  cost_.add(rows, ms);
}

}  // namespace ke
