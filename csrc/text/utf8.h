// UTF-8 at the level of bytes: well-formedness (Unicode table 3-7), code points, and Python's str.isspace.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ke::utf8 {

inline bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// Bytes of the well-formed character at text[at] (1..4), or 0 when it is ill-formed: truncated, overlong, a surrogate
// or beyond U+10FFFF. at < text.size().
inline size_t character_length(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) -> unsigned { return static_cast<unsigned char>(text[at + i]); };
  const size_t left = text.size() - at;
  const auto continues = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;
  if (lead < 0xE0) return left >= 2 && continues(1) ? 2 : 0;
  if (lead < 0xF0) {
    if (left < 3 || !continues(1) || !continues(2)) return 0;
    if (lead == 0xE0 && byte(1) < 0xA0) return 0;   // overlong
    if (lead == 0xED && byte(1) >= 0xA0) return 0;  // surrogate
    return 3;
  }
  if (lead > 0xF4 || left < 4 || !continues(1) || !continues(2) || !continues(3)) return 0;
  if (lead == 0xF0 && byte(1) < 0x90) return 0;   // overlong
  if (lead == 0xF4 && byte(1) >= 0x90) return 0;  // beyond U+10FFFF
  return 4;
}

// If text[at] begins no well-formed character: how many bytes are ill-formed together (1..3), because one U+FFFD stands
// for them (Unicode's "maximal subpart"; Python, Rust and the web do the same). open: the text ends inside a character
// that further bytes could complete.
struct IllFormed {
  size_t length;
  bool open;
};
inline IllFormed ill_formed(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) -> unsigned { return static_cast<unsigned char>(text[at + i]); };
  const unsigned lead = byte(0);
  if (lead < 0xC2 || lead > 0xF4) return {1, false};
  const size_t expected = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;   // else overlong
  const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;  // else a surrogate or beyond U+10FFFF
  for (size_t i = 1; i < expected; ++i) {
    if (at + i == text.size()) return {i, true};
    if (i == 1 ? byte(1) < low || byte(1) > high : !is_continuation(text[at + i])) return {i, false};
  }
  return {1, false};  // not reached if the character is ill-formed
}

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Appends text[at..] to out with U+FFFD for ill-formed bytes; stops before an open character at the end unless
// whole. Returns the byte where it stopped.
inline size_t append_repaired(std::string_view text, bool whole, std::string& out) {
  size_t at = 0;
  while (at < text.size()) {
    if (const size_t length = character_length(text, at)) {
      out.append(text.substr(at, length));
      at += length;
      continue;
    }
    const IllFormed bad = ill_formed(text, at);
    if (bad.open && !whole) break;
    out += kReplacement;
    at += bad.length;
  }
  return at;
}

inline std::string repaired(std::string_view text) {
  std::string out;
  append_repaired(text, /*whole=*/true, out);
  return out;
}

// Byte offset of the first ill-formed character, or npos if the whole text is well-formed.
inline size_t first_ill_formed(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = character_length(text, at);
    if (length == 0) return at;
    at += length;
  }
  return std::string_view::npos;
}

// The code point of the well-formed character at text[at] with the given length.
inline uint32_t code_point(std::string_view text, size_t at, size_t length) {
  const auto byte = [&](size_t i) -> uint32_t { return static_cast<unsigned char>(text[at + i]); };
  switch (length) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  }
}

// Appends the bytes of a code point; not a surrogate, at most U+10FFFF.
inline void append(uint32_t code, std::string& out) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    tail(6), tail(0);
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    tail(12), tail(6), tail(0);
  }
}

// A character that Python's str.strip() removes.
inline bool is_blank(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

}  // namespace ke::utf8
