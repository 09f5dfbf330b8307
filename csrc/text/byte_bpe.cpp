#include "text/byte_bpe.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/lowercase.h"
#include "text/nfc.h"
#include "text/utf8.h"

namespace ke {

namespace {

constexpr size_t kMaxMerges = size_t{1} << 21;
constexpr std::string_view kWordEnd = "</w>";

// GPT-2's alphabet: printable bytes are themselves, the others U+0100 and up, in order.
struct Alphabet {
  std::array<int16_t, 512> byte{};  // by code point; -1: not in the alphabet
  Alphabet() {
    byte.fill(-1);
    int next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool prints = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      byte[static_cast<size_t>(prints ? b : next++)] = static_cast<int16_t>(b);
    }
  }
};

// The bytes that a piece spells; false if a character is not in the alphabet.
bool spell(std::string_view piece, std::string& out) {
  static const Alphabet alphabet;
  for (size_t at = 0; at < piece.size();) {
    const size_t length = utf8::character_length(piece, at);
    const uint32_t code = utf8::code_point(piece, at, length);
    if (code >= alphabet.byte.size() || alphabet.byte[code] < 0) return false;
    out += static_cast<char>(alphabet.byte[code]);
    at += length;
  }
  return true;
}

std::vector<std::string> spell_all(const PieceTable& table) {
  std::vector<std::string> raw(static_cast<size_t>(table.size()));
  for (const int32_t id : table.ids_of(PieceType::Normal)) {
    KE_CHECK(spell(table.piece(id), raw[static_cast<size_t>(id)]), ModelCorrupt, "vocabulary: piece ", id,
             " is normal but not spelled in the byte alphabet; expected GPT-2's");
  }
  return raw;
}

PieceTrie trie_of_bytes(const PieceTable& table, const std::vector<std::string>& raw) {
  std::vector<int32_t> ids = table.ids_of(PieceType::Normal);
  std::sort(ids.begin(), ids.end(),
            [&](int32_t a, int32_t b) { return raw[static_cast<size_t>(a)] < raw[static_cast<size_t>(b)]; });
  return {raw, ids};
}

// The piece of each byte, with `end` behind it.
std::vector<int32_t> find_bytes(const PieceTrie& normal, std::string_view end) {
  std::vector<int32_t> ids(256);
  for (int b = 0; b < 256; ++b) {
    int32_t node = normal.child(PieceTrie::kRoot, static_cast<char>(b));
    for (size_t i = 0; i < end.size() && node >= 0; ++i) node = normal.child(node, end[i]);
    const int32_t id = node < 0 ? -1 : normal.id(node);
    KE_CHECK(id >= 0, ModelCorrupt, "vocabulary: no normal piece is the byte ", b, end.empty() ? "" : " and ", end);
    ids[static_cast<size_t>(b)] = id;
  }
  return ids;
}

std::vector<Merge> find_merges(const PieceTable& table, const std::vector<std::string>& texts) {
  KE_CHECK(texts.size() <= kMaxMerges, ModelCorrupt, "merges: ", texts.size(), ", at most ", kMaxMerges,
           " are allowed");
  const auto normal = [&](std::string_view piece) {
    const int32_t id = table.find(piece);
    return id >= 0 && table.type(id) == PieceType::Normal ? id : -1;
  };
  std::vector<Merge> merges;
  merges.reserve(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string& text = texts[i];
    KE_CHECK(text.size() <= 2 * kMaxPieceBytes + 1, ModelCorrupt, "merges: merge ", i, " has ", text.size(),
             " bytes, at most ", 2 * kMaxPieceBytes + 1, " are allowed");
    const size_t blank = text.find(' ');
    KE_CHECK(blank != std::string::npos && text.find(' ', blank + 1) == std::string::npos, ModelCorrupt,
             "merges: merge ", i, " is '", text, "'; expected two pieces with one blank between");
    const std::string_view left = std::string_view(text).substr(0, blank);
    const std::string_view right = std::string_view(text).substr(blank + 1);
    const Merge merge{normal(left), normal(right), static_cast<int32_t>(i), normal(concat(left, right))};
    KE_CHECK(merge.left >= 0 && merge.right >= 0 && merge.id >= 0, ModelCorrupt, "merges: merge ", i,
             " names a piece that is not a normal one of the vocabulary; expected normal ones");
    merges.push_back(merge);
  }
  return merges;
}

}  // namespace

ByteBpe::ByteBpe(ByteBpeVocabulary v)
    : Tokenizer(PieceTable(std::move(v.pieces), std::move(v.types), PieceType::Unused), {}),
      pretokenizer_(v.pretokenizer),
      whole_pieces_(v.whole_pieces),
      nfc_(v.nfc),
      words_(v.words),
      raw_(spell_all(table())),
      normal_(trie_of_bytes(table(), raw_)),
      byte_ids_(find_bytes(normal_, {})),
      last_ids_(v.words ? find_bytes(normal_, kWordEnd) : std::vector<int32_t>()),
      merges_(table().size(), find_merges(table(), v.merges)) {}

std::string ByteBpe::bytes(int32_t id) const {
  const PieceType kind = type(id);
  if (kind == PieceType::Normal) {
    const std::string& raw = raw_[static_cast<size_t>(id)];
    return words_ && raw.ends_with(kWordEnd) ? raw.substr(0, raw.size() - kWordEnd.size()) + ' ' : raw;
  }
  return kind == PieceType::Tag ? table().piece(id) : std::string();
}

void ByteBpe::encode_stretch(std::string_view given, bool /*at_start*/, std::vector<int32_t>& ids) const {
  std::string changed;
  if (nfc_) changed = to_nfc(given);
  if (words_) changed = to_lower(nfc_ ? std::string_view(changed) : given);
  const std::string_view text = nfc_ || words_ ? std::string_view(changed) : given;
  std::vector<int32_t> symbols;
  for (size_t at = 0, end = 0; at < text.size(); at = end) {
    end = pretoken_end(pretokenizer_, text, at);
    KE_ASSERT(end > at && end <= text.size());
    if (words_ && is_blank_at(text, at)) continue;
    int32_t whole = -1;
    if (whole_pieces_) {
      int32_t node = PieceTrie::kRoot;
      for (size_t i = at; i < end && node >= 0; ++i) node = normal_.child(node, text[i]);
      if (node >= 0) whole = normal_.id(node);
    }
    if (whole >= 0) {
      ids.push_back(whole);
    } else {
      symbols.clear();
      for (size_t i = at; i < end; ++i) symbols.push_back(byte_ids_[static_cast<unsigned char>(text[i])]);
      if (words_) symbols.back() = last_ids_[static_cast<unsigned char>(text[end - 1])];
      merges_.apply(symbols);
      ids.insert(ids.end(), symbols.begin(), symbols.end());
    }
  }
}

}  // namespace ke
