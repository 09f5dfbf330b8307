#include "text/lowercase.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "text/utf8.h"

namespace ke {
namespace {

struct Smaller {  // capitals every `step` code points, and how far their small letters are
  uint32_t first, last, step;
  int32_t by;
};
#include "text/unicode_lower.inl"

constexpr uint32_t kDottedCapitalI = 0x130, kDotAbove = 0x307;  // the one character that becomes two

uint32_t small(uint32_t c) {
  const auto after = std::upper_bound(std::begin(kSmaller), std::end(kSmaller), c,
                                      [](uint32_t v, const Smaller& run) { return v < run.first; });
  if (after == std::begin(kSmaller)) return c;
  const Smaller& run = *std::prev(after);
  if (c > run.last || (c - run.first) % run.step != 0) return c;
  return static_cast<uint32_t>(static_cast<int32_t>(c) + run.by);
}

}  // namespace

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0, length = 0; at < text.size(); at += length) {
    length = utf8::character_length(text, at);
    const uint32_t c = utf8::code_point(text, at, length);
    utf8::append(c == kDottedCapitalI ? 'i' : small(c), out);
    if (c == kDottedCapitalI) utf8::append(kDotAbove, out);
  }
  return out;
}

}  // namespace ke
