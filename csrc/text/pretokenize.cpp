#include "text/pretokenize.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "text/utf8.h"

namespace ke {

namespace {

struct CodePoints {
  uint32_t first, last;
};
#include "text/unicode_categories.inl"

template <size_t n>
bool contains(const CodePoints (&ranges)[n], uint32_t c) {
  const auto after = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                                      [](uint32_t v, const CodePoints& r) { return v < r.first; });
  return after != std::begin(ranges) && c <= std::prev(after)->last;
}

enum class Kind { Letter, Number, Blank, Other, End };

// \s of regular expressions: Unicode's White_Space. Python's str.isspace has four more control characters.
bool is_white_space(uint32_t c) { return utf8::is_blank(c) && !(c >= 0x1C && c <= 0x1F); }

Kind kind_of(uint32_t c) {
  if (c < 0x80) {
    if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') return Kind::Letter;
    if (c >= '0' && c <= '9') return Kind::Number;
    return is_white_space(c) ? Kind::Blank : Kind::Other;
  }
  if (contains(kLetters, c)) return Kind::Letter;
  if (contains(kNumbers, c)) return Kind::Number;
  return is_white_space(c) ? Kind::Blank : Kind::Other;
}

struct Scan {
  std::string_view text;

  struct Character {
    Kind kind;
    uint32_t code;
    size_t end;
  };
  Character at(size_t i) const {
    if (i >= text.size()) return {Kind::End, 0, i};
    const size_t length = utf8::character_length(text, i);
    const uint32_t code = utf8::code_point(text, i, length);
    return {kind_of(code), code, i + length};
  }
  // The end of the run of this kind that begins at i; at most `most` characters.
  size_t run(Kind kind, size_t i, size_t most = SIZE_MAX) const {
    for (; most > 0; --most) {
      const Character c = at(i);
      if (c.kind != kind) break;
      i = c.end;
    }
    return i;
  }
  size_t newlines(size_t i) const {
    while (i < text.size() && (text[i] == '\r' || text[i] == '\n')) ++i;
    return i;
  }
  // 's 't 're 've 'm 'll 'd, or i.
  size_t contraction(size_t i, bool any_case) const {
    if (text[i] != '\'') return i;
    const auto letter = [&](size_t k) -> char {
      if (k >= text.size()) return 0;
      const char c = text[k];
      if (any_case && c >= 'A' && c <= 'Z') return static_cast<char>(c | 0x20);
      return c;
    };
    const char a = letter(i + 1), b = letter(i + 2);
    if (a == 's' || a == 't') return i + 2;
    if (a != 0 && b == 'e' && (a == 'r' || a == 'v')) return i + 3;
    if (a == 'm' || a == 'd') return i + 2;
    if (a == 'l' && b == 'l') return i + 3;
    if (any_case && text.substr(i + 1).starts_with("\xC5\xBF")) return i + 3;  // U+017F folds to s
    return i;
  }
  // \s+(?!\S)|\s+: a run of blanks, without its last one if a non-blank follows it.
  size_t blanks(size_t i) const {
    size_t end = i, last = i;
    for (Character c = at(i); c.kind == Kind::Blank; c = at(end)) {
      last = end;
      end = c.end;
    }
    return end < text.size() && last > i ? last : end;
  }
};

size_t gpt2_end(const Scan& s, size_t i) {
  if (const size_t end = s.contraction(i, false); end > i) return end;
  const size_t word = s.text[i] == ' ' ? i + 1 : i;
  const Kind kind = s.at(word).kind;
  if (kind != Kind::Blank && kind != Kind::End) return s.run(kind, word);
  return s.blanks(i);
}

size_t cl100k_end(const Scan& s, size_t i, size_t digits) {
  if (const size_t end = s.contraction(i, true); end > i) return end;
  const Scan::Character c = s.at(i);
  if (c.kind == Kind::Letter) return s.run(Kind::Letter, i);
  const bool newline = c.code == '\r' || c.code == '\n';
  if (c.kind != Kind::Number && !newline && s.at(c.end).kind == Kind::Letter) return s.run(Kind::Letter, c.end);
  if (c.kind == Kind::Number) return s.run(Kind::Number, i, digits);
  const size_t word = c.code == ' ' ? c.end : i;
  if (s.at(word).kind == Kind::Other) return s.newlines(s.run(Kind::Other, word));
  const size_t end = s.run(Kind::Blank, i);  // \s*[\r\n]+ ends with the last newline of the run
  const size_t newline_at = s.text.substr(i, end - i).find_last_of("\r\n");
  return newline_at != std::string_view::npos ? i + newline_at + 1 : s.blanks(i);
}

size_t clip_end(const Scan& s, size_t i) {
  if (const size_t end = s.contraction(i, false); end > i) return end;
  const Kind kind = s.at(i).kind;
  return s.run(kind, i, kind == Kind::Number ? 1 : SIZE_MAX);
}

}  // namespace

size_t pretoken_end(Pretokenizer kind, std::string_view text, size_t at) {
  const Scan scan{text};
  switch (kind) {
    case Pretokenizer::Gpt2:
      return gpt2_end(scan, at);
    case Pretokenizer::Cl100k:
      return cl100k_end(scan, at, 3);
    case Pretokenizer::Clip:
      return clip_end(scan, at);
    default:
      return cl100k_end(scan, at, 1);
  }
}

bool is_blank_at(std::string_view text, size_t at) { return Scan{text}.at(at).kind == Kind::Blank; }

}  // namespace ke
