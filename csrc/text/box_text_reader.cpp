#include "text/box_text_reader.h"

#include <algorithm>

#include "base/error.h"
#include "text/utf8.h"

namespace ke {
namespace {

constexpr std::string_view kPhrase = "<p>", kPhraseEnd = "</p>", kDelimiter = "<delim>";
constexpr int kScale = 100;

enum class Match { No, Begin, Whole };

Match match_word(std::string_view word, std::string_view text) {
  if (!word.starts_with(text)) return Match::No;
  return text.size() == word.size() ? Match::Whole : Match::Begin;
}

// {<a><b><c><d>} with numbers of 0..100; `corners` are set where it is whole.
Match match_box(std::string_view text, std::array<int, 4>& corners) {
  size_t at = 0;
  const auto next = [&](char c) { return at < text.size() && text[at] == c ? (++at, true) : false; };
  if (!next('{')) return text.empty() ? Match::Begin : Match::No;
  for (int& corner : corners) {
    if (at == text.size()) return Match::Begin;
    if (!next('<')) return Match::No;
    const size_t digits = at;
    for (corner = 0; at < text.size() && text[at] >= '0' && text[at] <= '9'; at++) {
      corner = corner * 10 + (text[at] - '0');
      if (corner > kScale || at - digits == 3) return Match::No;
    }
    if (at == text.size()) return Match::Begin;
    if (at == digits || !next('>')) return Match::No;
  }
  if (at == text.size()) return Match::Begin;
  return next('}') && at == text.size() ? Match::Whole : Match::No;
}

Match match_tag(std::string_view text) {
  std::array<int, 4> corners{};
  Match best = match_box(text, corners);
  for (const std::string_view word : {kPhrase, kPhraseEnd, kDelimiter})
    if (const Match m = match_word(word, text); m != Match::No) best = m;
  return best;
}

}  // namespace

BoxTextReader::BoxTextReader(const Tokenizer& tokenizer) : tokenizer_(&tokenizer), decoder_(tokenizer) {}

void BoxTextReader::push(int32_t id) {
  const bool silent = tokenizer_->type(id) == PieceType::Tag || tokenizer_->bytes(id).empty();
  const size_t held = decoder_.held();
  const std::string text = decoder_.push(id);
  const int32_t index = next_index_++;
  if (silent) return append(text);
  // A run of bytes that this token ends comes before the token's own text.
  const size_t before = tokenizer_->joining(id) == Joining::Whole && held > 0
                            ? text.size() - std::min(text.size(), tokenizer_->bytes(id).size())
                            : 0;
  places_.add(offset_ + before, index, text.empty() && decoder_.held() > held);
  append(text);
}

void BoxTextReader::finish() {
  append(decoder_.finish());
  const std::string rest = std::exchange(held_, {});
  for (size_t at = 0; at < rest.size(); at++) emit(std::string_view(rest).substr(at, 1));
  end_entity();
}

void BoxTextReader::append(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8::character_length(text, at);
    KE_ASSERT(length > 0);  // the decoder repairs it
    offset_ += length;
    character(text.substr(at, length));
    at += length;
  }
}

void BoxTextReader::character(std::string_view c) {
  held_ += c;
  while (!held_.empty()) {
    const Match m = match_tag(held_);
    if (m == Match::Begin) return;
    if (m == Match::Whole) return take(std::exchange(held_, {}));
    const size_t length = utf8::character_length(held_, 0);
    const std::string first = held_.substr(0, length);
    held_.erase(0, length);
    emit(first);
  }
}

void BoxTextReader::take(std::string_view tag) {
  if (tag == kPhrase) {
    end_entity();
    phrase_ = Phrase::Open;
    first_ = kNone;
  } else if (tag == kPhraseEnd) {
    if (phrase_ != Phrase::Open || first_ == kNone) return end_entity();
    phrase_ = Phrase::Closed;
    entity_.start = static_cast<int64_t>(first_);
    entity_.end = static_cast<int64_t>(starts_.size());
    entity_.phrase = text_.substr(starts_[first_]);
    entity_.phrase_tokens = {places_.first_token_at(raw_.first), places_.token_at(raw_.second - 1) + 1};
  } else if (tag != kDelimiter) {
    box(tag);
  }
}

void BoxTextReader::box(std::string_view tag) {
  std::array<int, 4> c{};
  (void)match_box(tag, c);
  const bool named = phrase_ == Phrase::Closed;
  if (!named) {
    end_entity();
    entity_.start = entity_.end = static_cast<int64_t>(starts_.size());
    at_box_ = true;
  } else {
    blanks_.clear();
  }
  const auto share = [](int corner) { return static_cast<double>(corner) / kScale; };
  entity_.boxes.push_back({share(c[0]), share(c[1]), share(c[2]), share(c[3])});
  entity_.cells.push_back(kNoCells);
  std::vector<int32_t>& tokens = entity_.tokens.emplace_back();
  for (int32_t i = places_.token_at(offset_ - tag.size()); i <= places_.token_at(offset_ - 1); i++) tokens.push_back(i);
  if (!named) end_entity();
}

void BoxTextReader::emit(std::string_view c) {
  const size_t at = offset_ - held_.size();  // behind this character in the raw text
  if (utf8::is_blank(utf8::code_point(c, 0, c.size()))) {
    if (!text_.empty() && !(at_box_ && !blanks_.empty())) blanks_ += c;  // those around a box are there once
    return;
  }
  if (phrase_ == Phrase::Closed) end_entity();
  at_box_ = false;
  const std::string shown = std::exchange(blanks_, {}).append(c);
  for (size_t i = 0; i < shown.size(); i += utf8::character_length(shown, i)) starts_.push_back(text_.size() + i);
  text_ += shown;
  if (phrase_ != Phrase::Open) return;
  if (first_ == kNone) first_ = starts_.size() - 1, raw_.first = at - c.size();
  raw_.second = at;
}

// What was read of an entity is one if it has boxes; a phrase that is open stays text.
void BoxTextReader::end_entity() {
  if (!entity_.boxes.empty()) entities_.push_back(std::move(entity_));
  entity_ = {};
  phrase_ = Phrase::None;
}

size_t BoxTextReader::last_word() const {
  const size_t at = text_.rfind(' ');
  return at == std::string::npos ? 0 : at;
}

size_t BoxTextReader::byte_of(int64_t code_point) const {
  if (code_point <= 0) return 0;
  const auto at = static_cast<size_t>(code_point);
  return at < starts_.size() ? starts_[at] : text_.size();
}

}  // namespace ke
