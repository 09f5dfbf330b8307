#include "text/bert_words.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "text/nfc.h"
#include "text/utf8.h"

namespace ke {
namespace {

struct CodePoints {
  uint32_t first, last;
};
struct Smaller {  // capitals every `step` code points, and how far their small letters are
  uint32_t first, last, step;
  int32_t by;
};
#include "text/unicode_bert.inl"

template <class Run, size_t n>
const Run* run_of(const Run (&runs)[n], uint32_t c) {
  const auto after =
      std::upper_bound(std::begin(runs), std::end(runs), c, [](uint32_t v, const Run& r) { return v < r.first; });
  return after != std::begin(runs) && c <= std::prev(after)->last ? std::prev(after) : nullptr;
}

bool is_ideograph(uint32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

bool is_blank(uint32_t c) { return c == '\t' || c == '\n' || c == '\r' || (utf8::is_blank(c) && !run_of(kDropped, c)); }

bool is_mark(uint32_t c) {
  if (c < 0x80) return c > ' ' && c < 0x7F && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z') && !(c >= '0' && c <= '9');
  return run_of(kPunctuation, c) != nullptr;
}

uint32_t small(uint32_t c) {
  const Smaller* run = run_of(kSmaller, c);
  if (!run || (c - run->first) % run->step != 0) return c;
  return static_cast<uint32_t>(static_cast<int32_t>(c) + run->by);
}

}  // namespace

std::vector<std::string> bert_words(std::string_view text) {
  std::vector<uint32_t> codes;
  for (size_t at = 0, length = 0; at < text.size(); at += length) {
    length = utf8::character_length(text, at);
    const uint32_t c = utf8::code_point(text, at, length);
    if (is_blank(c)) {
      codes.push_back(' ');
    } else if (is_ideograph(c)) {
      codes.push_back(' ');
      decompose(c, codes);
      codes.push_back(' ');
    } else if (!run_of(kDropped, c)) {
      decompose(c, codes);
    }
  }
  order_marks(codes);
  std::vector<std::string> words;
  bool open = false;  // the last word goes on
  for (const uint32_t code : codes) {
    if (run_of(kAccents, code)) continue;
    const bool mark = is_mark(code);
    if (code == ' ') {
      open = false;
      continue;
    }
    if (mark || !open) words.emplace_back();
    utf8::append(small(code), words.back());
    open = !mark;
  }
  return words;
}

}  // namespace ke
