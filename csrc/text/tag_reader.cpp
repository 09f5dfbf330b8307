// After transformers' models/kosmos2/processing_kosmos2.py. Its regular expressions,
//   (<phrase>([^<]+)</phrase>)?<object>(pair(delimiter pair)*)</object>   and   <.*?>
// cannot match in two ways, so an automaton over tags finds the same: if a match fails at a tag, none can
// begin before that tag.
#include "text/tag_reader.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace ke {

namespace {

constexpr std::string_view kLocation = "<patch_index_";
constexpr int64_t kMarkEvery = 64;  // code points

struct Strip {
  std::string text;
  int64_t leading = 0, trailing = 0;  // code points removed; an all-blank text counts in both, as in Python
};

Strip strip(std::string_view text) {
  size_t begin = 0, end = 0;  // of what stays
  int64_t leading = 0, trailing = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8::character_length(text, at);
    if (utf8::is_blank(utf8::code_point(text, at, length))) {
      ++trailing;
    } else {
      if (end == 0) {
        begin = at;
        leading = trailing;
      }
      end = at + length;
      trailing = 0;
    }
    at += length;
  }
  if (end == 0) leading = trailing;
  return {std::string(text.substr(begin, end - begin)), leading, trailing};
}

}  // namespace

TagReader::TagReader(int64_t bins) : bins_(bins) {
  if (bins != 0) check_bins(bins);
}

void TagReader::append(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8::character_length(text, at);
    KE_ASSERT(length > 0);
    const std::string_view character = text.substr(at, length);
    at += length;
    if (bins_ == 0) {
      show(character);
    } else if (character == "<") {
      if (!lexeme_.empty()) expect_ = Expect::Nothing;  // it was not a tag
      lexeme_ = '<';
      in_digits_ = false;
      lexeme_at_ = offset_;
      lexeme_count_ = extent_.count;
      if (open_ == kNone) {
        open_ = visible_.size();
        before_open_ = extent_;
      }
      show(character);
    } else {
      if (character == ">" && open_ != kNone) {
        hide_open_tag();
      } else {
        show(character);
        if (character == "\n") open_ = kNone;  // a tag cannot continue on another line
      }
      offset_ += length;  // a phrase begins after its tag
      if (lexeme_.empty()) {
        take_text(character);
      } else {
        for (const char byte : character) lex(byte);
      }
      continue;
    }
    offset_ += length;
  }
}

void TagReader::show(std::string_view character) {
  Extent& e = extent_;
  if (e.count % kMarkEvery == 0) marks_.push_back(visible_.size());
  const size_t at = visible_.size();
  visible_ += character;
  ++e.count;
  if (character == " ") e.blank = at;
  if (utf8::is_blank(utf8::code_point(character, 0, character.size()))) return;
  if (e.begin == kNone) {
    e.begin = at;
    e.leading = e.count - 1;
  }
  if (e.blank != kNone && e.blank > e.begin) e.word = e.blank;
  if (bins_ != 0 && character == "<" && e.literal == kNone) e.literal = at;
  e.end = at + character.size();
}

void TagReader::hide_open_tag() {
  visible_.resize(open_);
  extent_ = before_open_;
  marks_.resize(static_cast<size_t>((extent_.count + kMarkEvery - 1) / kMarkEvery));
  open_ = kNone;
  unchanged_ = std::min(unchanged_, text().size());
}

void TagReader::lex(char byte) {
  static constexpr std::pair<std::string_view, Tag> kTags[] = {
      {"<phrase>", Tag::Phrase},
      {"</phrase>", Tag::PhraseEnd},
      {"<object>", Tag::Object},
      {"</object>", Tag::ObjectEnd},
      {"</delimiter_of_multi_objects/>", Tag::Delimiter},
  };
  const auto broken = [&] {
    lexeme_.clear();
    expect_ = Expect::Nothing;
  };
  if (in_digits_) {
    if (byte >= '0' && byte <= '9') {
      cell_ = std::min<int64_t>(cell_ * 10 + (byte - '0'), int64_t{1} << 40);
      digits_ = 1;
    } else if (byte == '>' && digits_ > 0) {
      lexeme_.clear();
      take(Tag::Location);
    } else {
      broken();
    }
    return;
  }
  lexeme_ += byte;
  if (lexeme_ == kLocation) {
    in_digits_ = true;
    digits_ = 0;
    cell_ = 0;
    return;
  }
  for (const auto& [text, tag] : kTags) {
    if (lexeme_ != text) continue;
    lexeme_.clear();
    return take(tag);
  }
  const bool begins =
      kLocation.starts_with(lexeme_) ||
      std::any_of(std::begin(kTags), std::end(kTags), [&](const auto& t) { return t.first.starts_with(lexeme_); });
  if (!begins) broken();
}

void TagReader::take_text(std::string_view character) {
  if (expect_ == Expect::PhraseText || expect_ == Expect::PhraseEnd) {
    match_.entity.phrase += character;
    expect_ = Expect::PhraseEnd;
  } else {
    expect_ = Expect::Nothing;
  }
}

void TagReader::take(Tag tag) {
  const Expect expected = std::exchange(expect_, Expect::Nothing);
  switch (tag) {
    case Tag::Phrase:
      match_ = {};
      match_.has_phrase = true;
      match_.phrase_begin = offset_;
      match_.entity.start = extent_.count;
      expect_ = Expect::PhraseText;
      return;
    case Tag::PhraseEnd:
      if (expected != Expect::PhraseEnd) return;
      match_.phrase_end = lexeme_at_;
      match_.entity.end = lexeme_count_;
      expect_ = Expect::Object;
      return;
    case Tag::Object:
      if (expected != Expect::Object) {
        match_ = {};
        match_.entity.start = match_.entity.end = lexeme_count_;
      }
      pairs_.clear();
      expect_ = Expect::First;
      return;
    case Tag::Location:
      if (expected == Expect::First) {
        first_ = {cell_, lexeme_at_};
        expect_ = Expect::Second;
      } else if (expected == Expect::Second) {
        pairs_.emplace_back(first_, Location{cell_, lexeme_at_});
        expect_ = Expect::MoreOrEnd;
      }
      return;
    case Tag::Delimiter:
      if (expected == Expect::MoreOrEnd) expect_ = Expect::First;
      return;
    case Tag::ObjectEnd:
      if (expected == Expect::MoreOrEnd) take_match();
  }
}

void TagReader::take_match() {
  const auto inside = [&](const auto& pair) { return std::max(pair.first.cell, pair.second.cell) < bins_ * bins_; };
  if (!std::all_of(pairs_.begin(), pairs_.end(), inside)) return;
  const FoundEntity match = std::move(match_);
  match_ = {};
  FoundEntity* found = nullptr;
  for (const auto& [first, second] : pairs_) {
    if (found == nullptr || !match.has_phrase) {
      found = &entities_.emplace_back(match);
      const Strip name = strip(match.has_phrase ? match.entity.phrase
                                                : concat(kLocation, first.cell, ">", kLocation, second.cell, ">"));
      found->entity.phrase = name.text;
      found->entity.start += name.leading;
      found->entity.end -= name.trailing;
    }
    Entity& entity = found->entity;
    entity.cells.emplace_back(static_cast<int32_t>(first.cell), static_cast<int32_t>(second.cell));
    entity.boxes.push_back(cells_to_box(entity.cells.back().first, entity.cells.back().second, bins_));
    found->locations.emplace_back(first.at, second.at);
  }
}

std::string_view TagReader::text() const {
  if (extent_.begin == kNone) return {};
  return std::string_view(visible_).substr(extent_.begin, extent_.end - extent_.begin);
}

int64_t TagReader::leading() const { return extent_.begin == kNone ? extent_.count : extent_.leading; }

size_t TagReader::byte_of(int64_t code_point) const {
  const std::string_view whole = text();
  if (code_point <= 0 || whole.empty()) return 0;
  const int64_t wanted = code_point + extent_.leading;
  if (wanted >= extent_.count) return whole.size();
  size_t at = marks_[static_cast<size_t>(wanted / kMarkEvery)];
  for (int64_t left = wanted % kMarkEvery; left > 0; --left) at += utf8::character_length(visible_, at);
  return std::min(at - extent_.begin, whole.size());
}

size_t TagReader::last_word() const { return extent_.word == kNone ? 0 : extent_.word - extent_.begin; }

size_t TagReader::literal() const { return extent_.literal == kNone ? text().size() : extent_.literal - extent_.begin; }

size_t TagReader::unchanged() { return std::exchange(unchanged_, text().size()); }

}  // namespace ke
