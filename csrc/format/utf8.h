// UTF-8 from files and callers: whether it is well formed, and how it appears in a message.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ke {

// Bytes of the well-formed character at text[i] (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF); 0
// if there is none.
inline size_t utf8_character(std::string_view text, size_t i) {
  const uint8_t lead = static_cast<uint8_t>(text[i]);
  if (lead < 0x80) return 1;
  const size_t more = lead >= 0xc2 && lead <= 0xdf   ? 1
                      : (lead & 0xf0) == 0xe0        ? 2
                      : lead >= 0xf0 && lead <= 0xf4 ? 3
                                                     : 0;
  if (more == 0 || text.size() - i <= more) return 0;
  uint32_t code = lead & (0x3fu >> more);
  for (size_t k = 1; k <= more; ++k) {
    if ((static_cast<uint8_t>(text[i + k]) & 0xc0) != 0x80) return 0;
    code = code << 6 | (static_cast<uint8_t>(text[i + k]) & 0x3f);
  }
  if (more == 2 && (code < 0x800 || (code >= 0xd800 && code <= 0xdfff))) return 0;
  if (more == 3 && (code < 0x10000 || code > 0x10ffff)) return 0;
  return more + 1;
}

inline bool is_utf8(std::string_view text) {
  for (size_t i = 0, n = 0; i < text.size(); i += n)
    if ((n = utf8_character(text, i)) == 0) return false;
  return true;
}

// In double quotes, cut after at most 128 bytes; control characters (of a terminal, too: U+0080..U+009F) and bytes that
// are not a character as \xNN.
inline std::string quoted(std::string_view text) {
  constexpr size_t longest = 128;
  std::string out = "\"";
  size_t i = 0;
  while (i < text.size()) {
    const size_t n = utf8_character(text, i);
    if (i + (n ? n : 1) > longest) break;
    const uint8_t c = static_cast<uint8_t>(text[i]);
    const bool control = n == 1 ? c < 32 || c == 127 : n == 2 && c == 0xc2 && static_cast<uint8_t>(text[i + 1]) < 0xa0;
    if (n > 0 && !control) {
      out += text.substr(i, n);
    } else {
      for (size_t k = 0; k < (n ? n : 1); ++k) {
        const uint8_t byte = static_cast<uint8_t>(text[i + k]);
        out += {'\\', 'x', "0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
      }
    }
    i += n ? n : 1;
  }
  return out += i < text.size() ? "...\"" : "\"";
}

}  // namespace ke
