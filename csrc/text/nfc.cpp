#include "text/nfc.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "text/utf8.h"

namespace ke {
namespace {

struct CombiningClass {
  uint32_t first, last;
  uint8_t value;
};
struct Single {  // a character that stands for another one
  uint32_t code, first;
};
struct Pair {  // a character that stands for two
  uint32_t code, first, second;
  uint8_t composes;  // 1: the two become it again
};
#include "text/unicode_nfc.inl"

// Hangul syllables are a leading consonant, a vowel and perhaps a trailing consonant (Unicode 3.12).
constexpr uint32_t kSyllables = 0xAC00, kLeading = 0x1100, kVowels = 0x1161, kTrailing = 0x11A7;
constexpr uint32_t kLeadingCount = 19, kVowelCount = 21, kTrailingCount = 28;
constexpr uint32_t kSyllableCount = kLeadingCount * kVowelCount * kTrailingCount;
constexpr uint32_t kFirstSpecial = 0x300;  // below it, every character is itself and combines with nothing before it

uint8_t class_of(uint32_t code) {
  const auto* found = std::upper_bound(std::begin(kClasses), std::end(kClasses), code,
                                       [](uint32_t c, const CombiningClass& run) { return c < run.first; });
  if (found == std::begin(kClasses)) return 0;
  --found;
  return code <= found->last ? found->value : 0;
}

// The character that two become; 0 if there is none.
uint32_t compose(uint32_t first, uint32_t second) {
  if (first >= kLeading && first < kLeading + kLeadingCount && second >= kVowels && second < kVowels + kVowelCount)
    return kSyllables + ((first - kLeading) * kVowelCount + (second - kVowels)) * kTrailingCount;
  if (first >= kSyllables && first < kSyllables + kSyllableCount && (first - kSyllables) % kTrailingCount == 0 &&
      second > kTrailing && second < kTrailing + kTrailingCount)
    return first + (second - kTrailing);
  using Entry = std::pair<uint64_t, uint32_t>;
  static const std::vector<Entry> pairs = [] {
    std::vector<Entry> made;
    for (const Pair& d : kPairs)
      if (d.composes) made.emplace_back(uint64_t{d.first} << 32 | d.second, d.code);
    std::sort(made.begin(), made.end());
    return made;
  }();
  const uint64_t key = uint64_t{first} << 32 | second;
  const auto found =
      std::lower_bound(pairs.begin(), pairs.end(), key, [](const Entry& p, uint64_t k) { return p.first < k; });
  return found != pairs.end() && found->first == key ? found->second : 0;
}

// Joins each starter with what follows it, unless a mark of the same or a higher class stands between.
void compose_all(std::vector<uint32_t>& codes) {
  size_t kept = 0, starter = codes.size();  // no starter yet
  uint8_t last = 0;                         // class of the last kept character behind the starter
  for (size_t at = 0; at < codes.size(); ++at) {
    const uint32_t code = codes[at];
    const uint8_t kind = class_of(code);
    const bool adjacent = starter + 1 == kept;
    if (starter < kept && (adjacent || last < kind)) {
      if (const uint32_t joined = compose(codes[starter], code)) {
        codes[starter] = joined;
        continue;
      }
    }
    codes[kept] = code;
    if (kind == 0) starter = kept;
    last = kind;
    ++kept;
  }
  codes.resize(kept);
}

}  // namespace

void decompose(uint32_t code, std::vector<uint32_t>& out) {
  if (code >= kSyllables && code < kSyllables + kSyllableCount) {
    const uint32_t index = code - kSyllables, trailing = index % kTrailingCount;
    out.push_back(kLeading + index / (kVowelCount * kTrailingCount));
    out.push_back(kVowels + index / kTrailingCount % kVowelCount);
    if (trailing) out.push_back(kTrailing + trailing);
    return;
  }
  const auto below = [](const auto& entry, uint32_t c) { return entry.code < c; };
  const auto* pair = std::lower_bound(std::begin(kPairs), std::end(kPairs), code, below);
  if (pair != std::end(kPairs) && pair->code == code) {
    decompose(pair->first, out);
    return decompose(pair->second, out);
  }
  const auto* single = std::lower_bound(std::begin(kSingles), std::end(kSingles), code, below);
  if (single != std::end(kSingles) && single->code == code) return decompose(single->first, out);
  out.push_back(code);
}

void order_marks(std::vector<uint32_t>& codes) {
  for (size_t at = 0; at < codes.size();) {
    size_t end = at;
    while (end < codes.size() && class_of(codes[end]) != 0) ++end;
    if (end - at > 1)
      std::stable_sort(codes.begin() + static_cast<ptrdiff_t>(at), codes.begin() + static_cast<ptrdiff_t>(end),
                       [](uint32_t a, uint32_t b) { return class_of(a) < class_of(b); });
    at = end + 1;
  }
}

std::string to_nfc(std::string_view text) {
  std::vector<uint32_t> codes;
  bool plain = true;
  for (size_t at = 0, length = 0; at < text.size(); at += length) {
    length = utf8::character_length(text, at);
    const uint32_t code = utf8::code_point(text, at, length);
    plain = plain && code < kFirstSpecial;
  }
  if (plain) return std::string(text);
  for (size_t at = 0, length = 0; at < text.size(); at += length) {
    length = utf8::character_length(text, at);
    decompose(utf8::code_point(text, at, length), codes);
  }
  order_marks(codes);
  compose_all(codes);
  std::string out;
  out.reserve(text.size());
  for (const uint32_t code : codes) utf8::append(code, out);
  return out;
}

}  // namespace ke
