// The vocabulary of a model file and texts for it: any pieces, scores, types and charsmap are refused or make a
// tokenizer whose ids are in range and whose work is linear, whatever the text.
//
// Input: uint16 pieces; each uint16 length, bytes, float32 score, int8 type; int32 unknown id; uint32 length and bytes
// of the charsmap; the rest is text. Whatever is cut off counts as empty.
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "targets.h"
#include "text/grounding.h"
#include "text/stream.h"
#include "text/tokenizer.h"

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
    if (type != ke::PieceType::Normal && type != ke::PieceType::Unknown)
      broken("plain text became the token " + tokenizer.piece(id));
  }
  (void)tokenizer.decode(plain);
  (void)ke::parse_grounded(tokenizer, tagged, 2);
  ke::StreamDecoder decoder(tokenizer, true);
  ke::StreamGrounder grounder(tokenizer, 2);
  tagged.resize(std::min<size_t>(tagged.size(), 512));  // the grounder reads an answer again at each of its boxes
  for (int32_t id : tagged) {
    (void)decoder.push(id);
    (void)grounder.push(id);
  }
}

Outcome run(std::span<const uint8_t> bytes) {
  Input in(bytes);
  ke::Vocabulary v;
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
    const ke::Tokenizer tokenizer(std::move(v));
    outcome.accepted = true;
    use(tokenizer, text);
    use(tokenizer, "An image of <image>\xE2\x96\x81</s> \xC3\xA9\xE4\xB8\xAD" + text.substr(0, 16));
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

Bytes make(Random& random) {
  struct Piece {
    std::string text;
    float score;
    int8_t type;
  };
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
        p.type = static_cast<int8_t>(random.chance(4) ? random.next() : random.below(6));
        break;
      default:
        pieces.erase(pieces.begin() + static_cast<long>(random.below(pieces.size())));
    }
  }
  Bytes out;
  const auto put = [&](uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i, value >>= 8) out.push_back(static_cast<uint8_t>(value));
  };
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
  const Bytes map = random.chance(3) ? Bytes{} : charsmap(random);
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
