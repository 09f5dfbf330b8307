// sentencepiece's text normaliser: replaces the longest prefix found in a precompiled character map, folds blanks and
// writes them as U+2581, and begins a text with one (the "dummy prefix").
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ke {

// The charsmap is a blob: uint32 little-endian size of the trie in bytes, the trie (uint32 units of a darts-clone
// double array), then NUL-terminated UTF-8 replacements, which the trie's values point at. It comes from an untrusted
// file: everything reachable in the trie is checked once, at construction.
enum class BlankPrefix {
  None,
  Always,       // sentencepiece's add_dummy_prefix
  UnlessBlank,  // transformers: only if the text does not begin with a blank
};

class Normalizer {
 public:
  // ModelCorrupt if the blob is not such a map. An empty blob replaces nothing.
  explicit Normalizer(const std::string& charsmap);

  // The result of sentencepiece's Normalizer with escape_whitespaces on. fold: its remove_extra_whitespaces (runs
  // of blanks become one, those at the ends vanish). An empty text stays empty. text is well-formed UTF-8, and so is
  // the result. Linear in text.size(). InvalidRequest if the result would exceed 32 MiB.
  std::string normalize(std::string_view text, BlankPrefix prefix = BlankPrefix::Always, bool fold = true) const;

 private:
  struct Prefix {
    std::string_view replacement;
    size_t consumed;  // bytes of the input
  };
  Prefix longest_prefix(std::string_view text, size_t at) const;
  void check_trie() const;
  void check_replacement(uint32_t value) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace ke
