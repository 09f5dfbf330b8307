// The normaliser of sentencepiece (src/normalizer.cc there) over a darts-clone double array (third_party/darts_clone).
#include "text/normalizer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace ke {

namespace {

constexpr size_t kMaxCharsmapBytes = size_t{4} << 20;     // nmt_nfkc has 237 539
constexpr size_t kMaxKeyBytes = 256;                      // bounds the work per input byte
constexpr size_t kMaxReplacementBytes = 1024;             // nmt_nfkc has at most 33
constexpr size_t kMaxNormalizedBytes = size_t{32} << 20;  // far above any prompt
constexpr std::string_view kBlankSymbol = "\xE2\x96\x81";
constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// A unit of the double array, as darts-clone packs it.
constexpr bool is_value(uint32_t unit) { return unit >> 31 != 0; }
constexpr uint32_t value(uint32_t unit) { return unit & 0x7FFFFFFFu; }
constexpr bool has_value(uint32_t unit) { return (unit >> 8 & 1) != 0; }
constexpr uint32_t label(uint32_t unit) { return unit & 0x800000FFu; }  // a value unit matches no byte
constexpr uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }

uint32_t little_endian(const char* p) {
  const auto byte = [&](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(p[i])); };
  return byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24;
}

}  // namespace

Normalizer::Normalizer(const std::string& charsmap) {
  if (charsmap.empty()) return;
  KE_CHECK(charsmap.size() <= kMaxCharsmapBytes, ModelCorrupt, "charsmap: at most ", kMaxCharsmapBytes,
           " bytes are allowed, it has ", charsmap.size());
  KE_CHECK(charsmap.size() > 4, ModelCorrupt, "charsmap: ", charsmap.size(), " bytes, too short for its header");
  const uint32_t trie_bytes = little_endian(charsmap.data());
  KE_CHECK(trie_bytes >= 4 && trie_bytes % 4 == 0 && trie_bytes < charsmap.size() - 4, ModelCorrupt,
           "charsmap: the header says ", trie_bytes, " bytes of trie in a blob of ", charsmap.size(),
           "; expected a multiple of 4 before the replacements");
  units_.resize(trie_bytes / 4);
  for (size_t i = 0; i < units_.size(); ++i) units_[i] = little_endian(charsmap.data() + 4 + 4 * i);
  replacements_ = charsmap.substr(4 + size_t{trie_bytes});
  KE_CHECK(replacements_.back() == '\0', ModelCorrupt, "charsmap: the last replacement is not terminated");
  const size_t bad = utf8::first_ill_formed(replacements_);
  KE_CHECK(bad == std::string::npos, ModelCorrupt, "charsmap: the replacements are not UTF-8 at byte ", bad);
  check_trie();
}

// Walks every base reachable from the root (a base locates the children of a node: child = base ^ byte) depth
// first, with an explicit stack. Nodes may share subtrees, so each base keeps the longest path below it; a base met
// again while it is still open is a cycle.
void Normalizer::check_trie() const {
  const uint32_t size = static_cast<uint32_t>(units_.size());
  constexpr uint16_t kNew = 0xFFFF, kOpen = 0xFFFE;
  std::vector<uint16_t> height(size, kNew);  // by base: bytes of the longest key below it, or a mark
  struct Frame {
    uint32_t base;
    uint32_t next_byte;
    uint16_t height;
  };
  std::vector<Frame> stack;
  const auto visit = [&](uint32_t base, uint32_t from) {
    KE_CHECK(base < size, ModelCorrupt, "charsmap: trie unit ", from, " points at ", base, " of ", size, " units");
    KE_CHECK(height[base] != kOpen, ModelCorrupt, "charsmap: the trie has a cycle through unit ", from);
    const bool known = height[base] != kNew;
    KE_CHECK(stack.size() + (known ? height[base] : 0) <= kMaxKeyBytes, ModelCorrupt, "charsmap: a key is longer than ",
             kMaxKeyBytes, " bytes");
    if (known) {
      if (!stack.empty()) stack.back().height = std::max<uint16_t>(stack.back().height, height[base] + 1);
    } else {
      height[base] = kOpen;
      stack.push_back({base, 0, 0});
    }
  };
  visit(offset(units_[0]), 0);
  while (!stack.empty()) {
    Frame& top = stack.back();
    if (top.next_byte == 256) {
      const uint16_t done = height[top.base] = top.height;
      stack.pop_back();
      if (!stack.empty()) stack.back().height = std::max<uint16_t>(stack.back().height, done + 1);
      continue;
    }
    const uint32_t byte = top.next_byte++;
    const uint32_t child = top.base ^ byte;
    if (child >= size || label(units_[child]) != byte) continue;
    const uint32_t base = child ^ offset(units_[child]);
    visit(base, child);  // top may dangle from here on
    if (!has_value(units_[child])) continue;
    KE_CHECK(is_value(units_[base]), ModelCorrupt, "charsmap: trie unit ", child, " has no value where it says so");
    check_replacement(value(units_[base]));
  }
}

void Normalizer::check_replacement(uint32_t at) const {
  KE_CHECK(at < replacements_.size() && !utf8::is_continuation(replacements_[at]), ModelCorrupt,
           "charsmap: a replacement begins at byte ", at, " of ", replacements_.size(), ", not at a character");
  KE_CHECK(replacements_.find('\0', at) - at <= kMaxReplacementBytes, ModelCorrupt,
           "charsmap: the replacement at byte ", at, " is longer than ", kMaxReplacementBytes, " bytes");
}

Normalizer::Prefix Normalizer::longest_prefix(std::string_view text, size_t at) const {
  const uint32_t size = static_cast<uint32_t>(units_.size());
  size_t length = 0;
  uint32_t found = 0;
  uint32_t base = size > 0 ? offset(units_[0]) : 0;
  for (size_t i = at; i < text.size() && size > 0; ++i) {
    const uint32_t byte = static_cast<unsigned char>(text[i]);
    const uint32_t child = base ^ byte;
    if (child >= size || label(units_[child]) != byte) break;
    base = child ^ offset(units_[child]);
    KE_ASSERT(base < size);  // guaranteed by check_trie
    if (has_value(units_[child])) {
      found = value(units_[base]);
      length = i + 1 - at;
    }
  }
  if (length > 0) {
    const size_t end = replacements_.find('\0', found);
    return {std::string_view(replacements_).substr(found, end - found), length};
  }
  // A key that ends inside a character leaves its rest ill-formed; sentencepiece then consumes one byte.
  const size_t character = utf8::character_length(text, at);
  if (character == 0) return {kReplacementCharacter, 1};
  return {text.substr(at, character), character};
}

std::string Normalizer::normalize(std::string_view text, BlankPrefix prefix, bool fold) const {
  size_t at = 0;
  while (fold && at < text.size()) {  // leading blanks
    const Prefix next = longest_prefix(text, at);
    if (next.replacement != " ") break;
    at += next.consumed;
  }
  std::string out;
  if (at == text.size()) return out;
  out.reserve(text.size() - at + kBlankSymbol.size());
  if (prefix != BlankPrefix::None) out += kBlankSymbol;
  bool after_blank = fold;
  bool first = true;
  while (at < text.size()) {
    auto [piece, consumed] = longest_prefix(text, at);
    at += consumed;
    if (after_blank) piece.remove_prefix(std::min(piece.find_first_not_of(' '), piece.size()));
    if (piece.empty()) continue;
    const bool has_blank = piece.front() == ' ' || piece.starts_with(kBlankSymbol);
    if (std::exchange(first, false) && has_blank && prefix == BlankPrefix::UnlessBlank) out.clear();
    for (const char c : piece) {
      if (c == ' ') {
        out += kBlankSymbol;
      } else {
        out += c;
      }
    }
    after_blank = fold && piece.back() == ' ';
    KE_CHECK(out.size() <= kMaxNormalizedBytes, InvalidRequest, "the text is longer than ", kMaxNormalizedBytes,
             " bytes after normalisation");
  }
  while (fold && out.ends_with(kBlankSymbol)) out.resize(out.size() - kBlankSymbol.size());
  return out;
}

}  // namespace ke
