#include "text/spm_bpe.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "text/utf8.h"

namespace ke {

namespace {

PieceTable checked_table(SpmBpeVocabulary& v) {
  const size_t n = v.pieces.size();
  KE_CHECK(v.scores.size() == n && v.types.size() == n, ModelCorrupt, "vocabulary: ", n, " pieces but ",
           v.scores.size(), " scores and ", v.types.size(), " types");
  PieceTable table(std::move(v.pieces), std::move(v.types), PieceType::Byte);
  KE_CHECK(v.unk >= 0 && v.unk < table.size() && table.type(v.unk) == PieceType::Unknown, ModelCorrupt,
           "vocabulary: id ", v.unk, " is named as the unknown piece of ", n, " pieces but is not of type Unknown");
  return table;
}

// The byte that <0x41> names, or -1.
int byte_of(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  int value = 0;
  for (const char c : piece.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

std::vector<int32_t> find_bytes(const PieceTable& table) {
  const std::vector<int32_t> ids = table.ids_of(PieceType::Byte);
  if (ids.empty()) return {};
  std::vector<int32_t> by_byte(256, -1);
  for (const int32_t id : ids) {
    const int byte = byte_of(table.piece(id));
    KE_CHECK(byte >= 0, ModelCorrupt, "vocabulary: piece ", id,
             " is of type Byte but not spelled <0x00> to <0xFF>, as is expected");
    by_byte[static_cast<size_t>(byte)] = id;
  }
  KE_CHECK(ids.size() == 256, ModelCorrupt, "vocabulary: ", ids.size(), " pieces of type Byte, expected 256 or none");
  return by_byte;
}

// By id: how many different scores are higher. ids: all pieces that count.
std::vector<int32_t> ranks_of(std::vector<int32_t> ids, const std::vector<float>& scores) {
  std::vector<int32_t> ranks(scores.size(), 0);
  const auto score = [&](int32_t id) { return scores[static_cast<size_t>(id)]; };
  for (const int32_t id : ids)
    KE_CHECK(std::isfinite(score(id)), ModelCorrupt, "vocabulary: the score of piece ", id, " is not finite");
  std::sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return score(a) > score(b); });
  for (size_t i = 1; i < ids.size(); ++i) {
    const int32_t before = ranks[static_cast<size_t>(ids[i - 1])];
    ranks[static_cast<size_t>(ids[i])] = before + (score(ids[i - 1]) > score(ids[i]) ? 1 : 0);
  }
  return ranks;
}

// Every way to split a Normal piece into two others. The pieces that begin a piece are found on one walk through a
// trie, those that end it on one through a trie of reversed pieces: linear in the bytes of all pieces.
std::vector<Merge> find_merges(const PieceTable& table, const PieceTrie& normal, const std::vector<float>& scores) {
  std::vector<int32_t> ids = table.ids_of(PieceType::Normal);
  KE_CHECK(!ids.empty(), ModelCorrupt, "vocabulary: there is no piece of type Normal");
  const std::vector<int32_t> ranks = ranks_of(ids, scores);
  std::vector<std::string> reversed(static_cast<size_t>(table.size()));
  for (const int32_t id : ids) {
    const std::string& piece = table.piece(id);
    reversed[static_cast<size_t>(id)].assign(piece.rbegin(), piece.rend());
  }
  const auto backwards = [&](int32_t id) -> const std::string& { return reversed[static_cast<size_t>(id)]; };
  std::sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return backwards(a) < backwards(b); });
  const PieceTrie endings(reversed, ids);
  const auto walk = [](const PieceTrie& trie, const std::string& piece, std::vector<int32_t>& found) {
    found.assign(piece.size() + 1, -1);  // by number of bytes
    int32_t node = PieceTrie::kRoot;
    for (size_t n = 1; n < piece.size(); ++n) {
      node = trie.child(node, piece[n - 1]);
      if (node < 0) return;
      found[n] = trie.id(node);
    }
  };
  std::vector<Merge> merges;
  std::vector<int32_t> before, behind;
  for (const int32_t id : ids) {
    const std::string& piece = table.piece(id);
    walk(normal, piece, before);
    walk(endings, backwards(id), behind);
    for (size_t n = 1; n < piece.size(); ++n) {
      const int32_t left = before[n], right = behind[piece.size() - n];
      if (left >= 0 && right >= 0) merges.push_back({left, right, ranks[static_cast<size_t>(id)], id});
    }
  }
  return merges;
}

}  // namespace

SpmBpe::SpmBpe(SpmBpeVocabulary v)
    : Tokenizer(checked_table(v), {.joins_parts = true, .drops_first_blank = v.blank_prefix}),
      unk_(v.unk),
      blank_prefix_(v.blank_prefix),
      prefix_every_stretch_(v.prefix_every_stretch),
      prefix_before_blank_(v.prefix_before_blank),
      fold_blanks_(v.fold_blanks),
      normalizer_(v.charsmap),
      normal_(table().trie_of(PieceType::Normal)),
      byte_ids_(find_bytes(table())),
      merges_(table().size(), find_merges(table(), normal_, v.scores)) {}

std::string SpmBpe::bytes(int32_t id) const {
  switch (type(id)) {
    case PieceType::Normal:
      return with_blanks(table().piece(id));
    case PieceType::Tag:
      return table().piece(id);
    case PieceType::Byte:
      return {static_cast<char>(byte_of(table().piece(id)))};
    default:
      return {};
  }
}

void SpmBpe::encode_stretch(std::string_view text, bool at_start, std::vector<int32_t>& ids) const {
  const BlankPrefix prefix = !blank_prefix_ || !(prefix_every_stretch_ || at_start) ? BlankPrefix::None
                             : prefix_before_blank_                                 ? BlankPrefix::Always
                                                                                    : BlankPrefix::UnlessBlank;
  const std::string normalized = normalizer_.normalize(text, prefix, fold_blanks_);
  constexpr int32_t kUncovered = -1;
  std::vector<int32_t> symbols;
  std::string uncovered;  // the characters of those symbols, concatenated
  symbols.reserve(normalized.size());
  for (size_t at = 0; at < normalized.size();) {
    const size_t length = utf8::character_length(normalized, at);
    KE_ASSERT(length > 0);
    int32_t node = PieceTrie::kRoot;
    for (size_t i = 0; i < length && node >= 0; ++i) node = normal_.child(node, normalized[at + i]);
    const int32_t id = node < 0 ? -1 : normal_.id(node);
    symbols.push_back(id < 0 ? kUncovered : id);
    if (id < 0) uncovered.append(normalized, at, length);
    at += length;
  }
  merges_.apply(symbols);
  size_t at = 0;  // in uncovered
  const size_t first = ids.size();
  for (const int32_t symbol : symbols) {
    if (symbol >= 0) {
      ids.push_back(symbol);
      continue;
    }
    const size_t end = at + utf8::character_length(uncovered, at);
    if (byte_ids_.empty()) {  // a run of them is one unk
      if (ids.size() == first || ids.back() != unk_) ids.push_back(unk_);
    } else {
      for (size_t i = at; i < end; ++i) ids.push_back(byte_ids_[static_cast<unsigned char>(uncovered[i])]);
    }
    at = end;
  }
}

}  // namespace ke
