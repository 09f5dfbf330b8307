// The vocabulary of a model file and texts for it: any pieces, scores, types and charsmap are refused or make a
// tokenizer whose ids are in range and whose work is linear, whatever the text.
//
// Input: uint8 kind of tokenizer and its options; uint16 pieces; each uint16 length, bytes, float32 score, int8 type;
// int32 unknown id; uint32 length and bytes of the charsmap, or of the merges, one a line; the rest is text. Whatever
// is cut off counts as empty.
#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "base/error.h"
#include "targets.h"
#include "text/byte_bpe.h"
#include "text/grounding.h"
#include "text/spm_bpe.h"
#include "text/stream.h"
#include "text/unigram.h"
#include "text/utf8.h"

namespace fuzz {
namespace {

class Input {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  template <class T>
  T number() {
    T value{};
    const size_t n = std::min(sizeof value, bytes_.size());
    std::memcpy(&value, bytes_.data(), n);
    bytes_ = bytes_.subspan(n);
    return value;
  }
  std::string text(size_t n) {
    n = std::min(n, bytes_.size());
    std::string out(reinterpret_cast<const char*>(bytes_.data()), n);
    bytes_ = bytes_.subspan(n);
    return out;
  }
  size_t left() const { return bytes_.size(); }

 private:
  std::span<const uint8_t> bytes_;
};

void check_ids(const ke::Tokenizer& tokenizer, const std::vector<int32_t>& ids, size_t text_bytes, const char* what) {
  for (int32_t id : ids)
    if (id < 0 || id >= tokenizer.size()) broken(ke::concat(what, " gave id ", id));
  if (ids.size() > 2 + 3 * (text_bytes + 1) * 1024) broken(ke::concat(what, " gave ", ids.size(), " ids"));
}

// Deltas are whole characters and add up to the decoded text.
void stream(const ke::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  ke::StreamDecoder decoder(tokenizer, true);
  ke::StreamGrounder grounder(tokenizer, 2);
  std::string text;
  for (int32_t id : ids) {
    const std::string delta = decoder.push(id);
    if (ke::utf8::first_ill_formed(delta) != std::string::npos) broken("a delta is not well-formed UTF-8");
    text += delta;
    (void)grounder.push(id);
  }
  if (text + decoder.finish() != tokenizer.decode(ids)) broken("the deltas are not the decoded text");
}

void use(const ke::Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> plain, tagged;
  try {
    plain = tokenizer.encode(text);
    tagged = tokenizer.encode_with_tags(text);
  } catch (const ke::Error& e) {
    if (e.code() != ke::ErrorCode::InvalidRequest) broken(std::string("encode: ") + e.what());
    return;
  }
  check_ids(tokenizer, plain, text.size(), "encode");
  check_ids(tokenizer, tagged, text.size(), "encode_with_tags");
  for (int32_t id : plain) {  // what a user types is data: no tag, no control token
    const ke::PieceType type = tokenizer.type(id);
    if (type != ke::PieceType::Normal && type != ke::PieceType::Unknown && type != ke::PieceType::Byte)
      broken("plain text became the token " + tokenizer.piece(id));
  }
  (void)tokenizer.decode(plain);
  (void)ke::parse_grounded(tokenizer, tagged, 2);
  stream(tokenizer, tagged);
  std::vector<int32_t> any = plain;  // ids in no order, so that bytes are no text
  for (size_t i = 0; i < any.size(); ++i)
    any[i] = static_cast<int32_t>((static_cast<size_t>(any[i]) * 31 + i) % static_cast<size_t>(tokenizer.size()));
  stream(tokenizer, any);
}

std::unique_ptr<ke::Tokenizer> make_tokenizer(uint8_t kind, ke::UnigramVocabulary v) {
  const auto option = [&](int bit) { return (kind >> bit & 1) != 0; };
  if (kind % 4 == 1)
    return std::make_unique<ke::SpmBpe>(ke::SpmBpeVocabulary{std::move(v.pieces), std::move(v.scores),
                                                             std::move(v.types), std::move(v.charsmap), v.unk,
                                                             option(2), option(3), option(4), option(5)});
  if (kind % 4 != 2) return std::make_unique<ke::Unigram>(std::move(v));
  ke::ByteBpeVocabulary b{std::move(v.pieces), std::move(v.types), {}, ke::Pretokenizer::Gpt2, option(2)};
  b.pretokenizer = option(3) ? ke::Pretokenizer::Cl100k : option(4) ? ke::Pretokenizer::Qwen2 : ke::Pretokenizer::Gpt2;
  for (size_t at = 0, end; at < v.charsmap.size(); at = end + 1) {
    end = std::min(v.charsmap.find('\n', at), v.charsmap.size());
    b.merges.push_back(v.charsmap.substr(at, end - at));
  }
  return std::make_unique<ke::ByteBpe>(std::move(b));
}

Outcome run(std::span<const uint8_t> bytes) {
  Input in(bytes);
  const uint8_t kind = in.number<uint8_t>();
  ke::UnigramVocabulary v;
  for (size_t n = in.number<uint16_t>(); n > 0 && in.left() > 0; --n) {
    v.pieces.push_back(in.text(in.number<uint16_t>()));
    v.scores.push_back(in.number<float>());
    v.types.push_back(in.number<int8_t>());
  }
  v.unk = in.number<int32_t>();
  v.charsmap = in.text(in.number<uint32_t>());
  const std::string text = in.text(in.left());
  Outcome outcome;
  try {
    const auto tokenizer = make_tokenizer(kind, std::move(v));
    outcome.accepted = true;
    use(*tokenizer, text);
    use(*tokenizer, "An image of <image>\xE2\x96\x81</s> \xC3\xA9\xE4\xB8\xAD" + text.substr(0, 16));
    outcome.captioned = true;
  } catch (const ke::Error& e) {
    if (outcome.accepted || e.code() != ke::ErrorCode::ModelCorrupt) broken(std::string("tokenizer: ") + e.what());
    outcome.error = e.what();
  }
  (void)ke::clean_up_tokenization(text);
  return outcome;
}

// sentencepiece's compiled map for a few single-byte keys and one of two bytes: a double array and the replacements.
Bytes charsmap(Random& random) {
  const std::string replacements("\0 \0a\0e\xCC\x81\0\xE4\xB8\xAD\0", 14);
  std::vector<uint32_t> units(1024);
  const uint32_t base = 256 * (1 + static_cast<uint32_t>(random.below(2)));
  units[0] = base << 10;
  uint32_t slot = 1;
  const auto add = [&](uint32_t at, uint8_t byte, uint32_t value) {
    const uint32_t child = at ^ byte;
    units[child] = byte | 1u << 8 | (child ^ slot) << 10;
    units[slot++] = 1u << 31 | value;
  };
  for (uint8_t byte : {'\t', 'A', 'B', '~', '\x0B'}) add(base, byte, random.pick<uint32_t>({0, 1, 3, 5, 9}));
  const uint32_t lead = base ^ 0xC3u;
  units[lead] = 0xC3u | (lead ^ 768u) << 10;
  add(768, 0xA9, 3);
  Bytes out;
  const auto put = [&](uint32_t value) {
    for (int i = 0; i < 4; ++i, value >>= 8) out.push_back(static_cast<uint8_t>(value));
  };
  put(static_cast<uint32_t>(units.size() * 4));
  for (uint32_t u : units) put(u);
  out.insert(out.end(), replacements.begin(), replacements.end());
  if (random.chance(2)) {  // most of the trie is empty: hit what is not
    for (uint64_t n = random.below(4); n > 0; --n) {
      const size_t used = 4 + 4 * random.pick<size_t>({0, base ^ '\t', base ^ 'A', lead, 768 ^ 0xA9, 1, 2, 3, 4, 5, 6});
      const uint64_t value = random.chance(2) ? random.nasty() : random.next();
      for (size_t k = random.below(4); k < 4; ++k) out[used + k] = static_cast<uint8_t>(value >> 8 * k);
    }
  }
  return out;
}

struct Piece {
  std::string text;
  float score;
  int8_t type;
};

std::vector<Piece> sentencepiece_pieces(Random& random, bool bytes) {
  std::vector<Piece> pieces = {{"<s>", 0, 3}, {"<pad>", 0, 3}, {"</s>", 0, 3}, {"<unk>", 0, 2}};
  for (const char* p : {"\xE2\x96\x81", "a", "An",
                        "\xE2\x96\x81"
                        "An",
                        "\xE2\x96\x81"
                        "image",
                        "n", "e", "\xC3\xA9", "an", "ana"})
    pieces.push_back({p, -1.0f - static_cast<float>(random.below(64)) / 8, 1});
  for (const char* p : {"<image>", "</image>", "<phrase>", "</phrase>", "<object>", "</object>", "<grounding>",
                        "<patch_index_0000>", "<patch_index_0001>", "<patch_index_0002>", "<patch_index_0003>"})
    pieces.push_back({p, 0, 4});
  if (bytes) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    for (int b = 0; b < 256; ++b)
      pieces.push_back({std::string("<0x") + kDigits[b / 16] + kDigits[b % 16] + ">", 0, 6});
  }
  return pieces;
}

// GPT-2's alphabet and a few words; their merges go into `merges`.
std::vector<Piece> byte_level_pieces(Random& random, std::string& merges) {
  std::vector<Piece> pieces = {{"</s>", 0, 3}, {"<image>", 0, 4}, {"<object>", 0, 4}};
  const auto utf8 = [](int code) {
    if (code < 0x80) return std::string(1, static_cast<char>(code));
    return std::string{static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
  };
  int next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool prints = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    pieces.push_back({utf8(prints ? b : next++), 0, 1});
  }
  for (const auto& [left, right] : {std::pair{"a", "n"}, {"an", "a"}, {"A", "n"}, {"i", "m"}, {"\xC4\xA0", "im"}}) {
    if (random.chance(4)) continue;
    pieces.push_back({std::string(left) + right, 0, 1});
    merges += std::string(left) + " " + right + "\n";
  }
  return pieces;
}

Bytes make(Random& random) {
  const uint8_t kind = static_cast<uint8_t>(random.next());
  std::string merges;
  std::vector<Piece> pieces =
      kind % 4 == 2 ? byte_level_pieces(random, merges) : sentencepiece_pieces(random, kind % 4 == 1);
  for (uint64_t n = random.pick<uint64_t>({0, 0, 1, 2, 5}); n > 0; --n) {
    Piece& p = random.pick_of(pieces);
    switch (random.below(6)) {
      case 0:
        p.text = random.text(random.below(4));
        break;
      case 1:
        p.text = random.pick_of(pieces).text;
        break;
      case 2:
        p.text = std::string(random.pick<size_t>({0, 255, 1023, 1024, 1025}), 'a');
        break;
      case 3:
        p.score = random.nasty_float();
        break;
      case 4:
        p.type = static_cast<int8_t>(random.chance(4) ? random.next() : random.below(7));
        break;
      default:
        pieces.erase(pieces.begin() + static_cast<long>(random.below(pieces.size())));
    }
  }
  Bytes out;
  const auto put = [&](uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i, value >>= 8) out.push_back(static_cast<uint8_t>(value));
  };
  put(kind, 1);
  put(pieces.size(), 2);
  for (const Piece& p : pieces) {
    put(p.text.size(), 2);
    out.insert(out.end(), p.text.begin(), p.text.end());
    uint32_t bits;
    std::memcpy(&bits, &p.score, 4);
    put(bits, 4);
    put(static_cast<uint8_t>(p.type), 1);
  }
  put(random.chance(8) ? random.nasty() : 3, 4);
  const Bytes map = kind % 4 == 2 ? Bytes(merges.begin(), merges.end()) : random.chance(3) ? Bytes{} : charsmap(random);
  put(random.chance(16) ? random.nasty(map.size()) : map.size(), 4);
  out.insert(out.end(), map.begin(), map.end());
  std::string text = random.text(random.below(24));
  if (random.chance(16))
    for (int i = 0; i < 12; ++i) text += text.size() < 65536 ? text : "";
  out.insert(out.end(), text.begin(), text.end());
  if (random.chance(6)) random.damage(out, 1 + static_cast<int>(random.below(4)));
  return out;
}

}  // namespace

const Target tokenizer_target = {"tokenizer", make, run};

}  // namespace fuzz

KE_FUZZ_ENTRY(fuzz::tokenizer_target)
