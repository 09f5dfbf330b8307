#include "text/page_reader.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace ke {
namespace {

constexpr std::string_view kBreak = "<br>";

}  // namespace

PageReader::PageReader(const Tokenizer& tokenizer, int64_t width, int64_t height, bool markdown)
    : tokenizer_(&tokenizer),
      width_(static_cast<double>(width)),
      height_(static_cast<double>(height)),
      markdown_(markdown),
      decoder_(tokenizer) {}

void PageReader::push(int32_t id) {
  const bool is_tag = tokenizer_->type(id) == PieceType::Tag;
  const bool silent = !is_tag && tokenizer_->bytes(id).empty();
  const int32_t index = next_index_++;
  if (silent) return;
  if (is_tag) {
    append(decoder_.finish());  // a character does not go on behind a tag
    flush_held();
    return tag(tokenizer_->piece(id), index);
  }
  if (box_ == BoxState::Open) box_ = BoxState::Broken;
  if (tokens_.first == tokens_.second) tokens_.first = index;
  tokens_.second = index + 1;
  append(decoder_.push(id));
}

void PageReader::finish() {
  append(decoder_.finish());
  flush_held();
  const size_t closed = entities_.size();
  end_line();
  ends_in_line_ = entities_.size() > closed;
}

void PageReader::tag(std::string_view name, int32_t index) {
  if (name == "<bbox>") {
    end_line();
    box_ = BoxState::Open;
  } else if (name == "</bbox>") {
    box_ = box_ == BoxState::Open && corner_count_ == corners_.size() ? BoxState::Whole : BoxState::Broken;
  } else if (box_ == BoxState::Open && !coordinate(name, index)) {
    box_ = BoxState::Broken;
  }
}

// Whether the tag is the next one of x, y, x, y.
bool PageReader::coordinate(std::string_view name, int32_t index) {
  const std::string_view axis = corner_count_ % 2 == 0 ? "<x_" : "<y_";
  if (corner_count_ == corners_.size() || !name.starts_with(axis) || !name.ends_with('>')) return false;
  const std::string_view digits = name.substr(axis.size(), name.size() - axis.size() - 1);
  int32_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || value < 0) return false;
  corner_tokens_[corner_count_] = index;
  corners_[corner_count_++] = value;
  return true;
}

void PageReader::append(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8::character_length(text, at);
    KE_ASSERT(length > 0);  // the decoder repairs it
    character(text.substr(at, length));
    at += length;
  }
}

void PageReader::flush_held() {
  const std::string held = std::exchange(held_, {});
  for (const char& c : held) emit({&c, 1});
}

void PageReader::character(std::string_view c) {
  if (!markdown_) return emit(c);
  if (c[0] != kBreak[held_.size()]) flush_held();  // c may begin another one
  if (c[0] != kBreak[held_.size()]) return emit(c);
  held_ += c;
  if (held_ != kBreak) return;
  held_.clear();
  emit("\n");
}

void PageReader::emit(std::string_view c) {
  if (utf8::is_blank(utf8::code_point(c, 0, c.size()))) {
    if (markdown_ && c == "\n") {
      breaks_++;
      blanks_.clear();
    } else {
      blanks_ += c;
    }
    return;
  }
  std::string before;
  if (has_text_) {
    before = breaks_ > 0 ? std::string(std::min<size_t>(breaks_, 2), '\n') : blanks_;
  } else {
    if (!text_.empty()) before = "\n";
  }
  blanks_.clear();
  breaks_ = 0;
  for (size_t at = 0; at < before.size();) {
    starts_.push_back(text_.size());
    const size_t length = utf8::character_length(before, at);
    text_.append(before, at, length);
    at += length;
  }
  if (!has_text_) {
    has_text_ = true;
    begin_ = starts_.size();
    begin_byte_ = text_.size();
  }
  starts_.push_back(text_.size());
  text_ += c;
}

void PageReader::end_line() {
  const BoxState box = std::exchange(box_, BoxState::None);
  const bool has_text = std::exchange(has_text_, false);
  const std::pair<int32_t, int32_t> tokens = std::exchange(tokens_, {});
  corner_count_ = 0;
  blanks_.clear();
  breaks_ = 0;
  if (box == BoxState::None || width_ <= 0 || height_ <= 0) return;
  if (!has_text) {
    blank_++;
    return;
  }
  const auto [x1, y1, x2, y2] = corners_;
  const Box cut = {std::min(x1 / width_, 1.0), std::min(y1 / height_, 1.0), std::min(x2 / width_, 1.0),
                   std::min(y2 / height_, 1.0)};
  if (box != BoxState::Whole || cut.x1 >= cut.x2 || cut.y1 >= cut.y2) {
    broken_++;
    return;
  }
  if (x2 > width_ || y2 > height_) cut_++;
  Entity e;
  e.phrase = text_.substr(begin_byte_);
  e.start = static_cast<int64_t>(begin_);
  e.end = static_cast<int64_t>(starts_.size());
  e.boxes = {cut};
  e.cells = {kNoCells};
  e.tokens = {{corner_tokens_.begin(), corner_tokens_.end()}};
  e.phrase_tokens = tokens;
  entities_.push_back(std::move(e));
}

size_t PageReader::last_word() const {
  const size_t at = text_.find_last_of(" \n");
  return at == std::string::npos ? 0 : at;
}

size_t PageReader::unchanged() { return std::exchange(known_, text_.size()); }

size_t PageReader::byte_of(int64_t code_point) const {
  if (code_point <= 0) return 0;
  const auto at = static_cast<size_t>(code_point);
  return at < starts_.size() ? starts_[at] : text_.size();
}

std::vector<std::string> PageReader::notes() const {
  std::vector<std::string> out;
  if (markdown_) return out;  // has no lines that a box could be missing from
  const auto add = [&](size_t count, const char* one, const char* many) {
    if (count > 0) out.push_back(count == 1 ? concat("1 ", one) : concat(count, " ", many));
  };
  add(broken_, "line has no usable box: it is in the text, but not among the lines",
      "lines have no usable box: they are in the text, but not among the lines");
  add(blank_, "box without text was left out", "boxes without text were left out");
  add(cut_, "box reached beyond the image and was cut at its edge",
      "boxes reached beyond the image and were cut at its edge");
  return out;
}

}  // namespace ke
