// Tags, parts and decoding, for every kind of tokenizer.
#include "text/tokenizer.h"

#include "base/error.h"
#include "text/stream_decoder.h"
#include "text/utf8.h"

namespace ke {

namespace {

constexpr size_t kMaxTextBytes = size_t{16} << 20;  // of one text

void check_text(std::string_view text) {
  const size_t bad = utf8::first_ill_formed(text);
  KE_CHECK(bad == std::string_view::npos, InvalidRequest, "the text is not well-formed UTF-8 at byte ", bad);
}

// The longest piece of the trie that text[at] begins with; id -1 if there is none.
struct Hit {
  int32_t id = -1;
  size_t end = 0;
};
Hit longest(const PieceTrie& trie, std::string_view text, size_t at) {
  Hit hit;
  int32_t node = PieceTrie::kRoot;
  for (size_t end = at; end < text.size();) {
    node = trie.child(node, text[end++]);
    if (node < 0) break;
    if (trie.id(node) >= 0) hit = {trie.id(node), end};
  }
  return hit;
}

}  // namespace

Tokenizer::Tokenizer(PieceTable table, Rules rules)
    : table_(std::move(table)),
      tags_(table_.trie_of(PieceType::Tag)),
      joins_parts_(rules.joins_parts),
      drops_first_blank_(rules.drops_first_blank) {}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool at_start) const {
  const TextPart part{text, false};
  return encode_parts({&part, 1}, at_start);
}

std::vector<int32_t> Tokenizer::encode_with_tags(std::string_view text, bool at_start) const {
  const TextPart part{text, true};
  return encode_parts({&part, 1}, at_start);
}

std::vector<int32_t> Tokenizer::encode_parts(std::span<const TextPart> parts, bool at_start) const {
  size_t total = 0;
  for (const TextPart& part : parts) {
    total += part.text.size();
    KE_CHECK(total <= kMaxTextBytes, InvalidRequest, "the text has ", total, " bytes, at most ", kMaxTextBytes,
             " are allowed");
    check_text(part.text);
  }
  std::vector<int32_t> ids;
  std::string open;  // text since the last tag that earlier parts have given
  const auto encode_open = [&](std::string_view last) {
    if (!open.empty()) last = open.append(last);
    if (!last.empty()) encode_stretch(last, std::exchange(at_start, false), ids);
    open.clear();
  };
  for (const TextPart& part : parts) {
    size_t stretch = 0;  // where the text since the last tag begins
    for (size_t at = 0; part.tags && at < part.text.size();) {
      const Hit tag = longest(tags_, part.text, at);
      if (tag.id < 0) {
        ++at;
        continue;
      }
      encode_open(part.text.substr(stretch, at - stretch));
      ids.push_back(tag.id);
      at_start = false;
      at = stretch = tag.end;
    }
    if (joins_parts_ && parts.size() > 1) {
      open.append(part.text.substr(stretch));
    } else {
      encode_open(part.text.substr(stretch));
    }
  }
  encode_open({});
  return ids;
}

std::string Tokenizer::text(int32_t id) const { return utf8::repaired(bytes(id)); }

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  StreamDecoder decoder(*this, /*keep_tags=*/true);
  std::string out;
  for (const int32_t id : ids) out += decoder.push(id);
  return out + decoder.finish();
}

}  // namespace ke
