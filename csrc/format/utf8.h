// UTF-8 of files and callers: is it well formed, and how to show it in a message.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ke {

// True for well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
inline bool is_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const uint8_t lead = static_cast<uint8_t>(text[i++]);
    if (lead < 0x80) continue;
    const int more = lead >= 0xc2 && lead <= 0xdf   ? 1
                     : (lead & 0xf0) == 0xe0        ? 2
                     : lead >= 0xf0 && lead <= 0xf4 ? 3
                                                    : 0;
    if (more == 0) return false;
    uint32_t code = lead & (0x3fu >> more);
    for (int k = 0; k < more; ++k) {
      if (i == text.size() || (static_cast<uint8_t>(text[i]) & 0xc0) != 0x80) return false;
      code = code << 6 | (static_cast<uint8_t>(text[i++]) & 0x3f);
    }
    if (more == 2 && (code < 0x800 || (code >= 0xd800 && code <= 0xdfff))) return false;
    if (more == 3 && (code < 0x10000 || code > 0x10ffff)) return false;
  }
  return true;
}

// In double quotes, cut after at most 128 bytes at the border of a character.
inline std::string quoted(std::string_view text) {
  constexpr size_t longest = 128;
  size_t n = text.size();
  if (n > longest)
    for (n = longest; n > 0 && (static_cast<uint8_t>(text[n]) & 0xc0) == 0x80;) --n;
  std::string out = "\"";
  out += text.substr(0, n);
  return out += n < text.size() ? "...\"" : "\"";
}

}  // namespace ke
