#include "text/word_piece.h"

#include <algorithm>

#include "base/error.h"
#include "text/bert_words.h"
#include "text/utf8.h"

namespace ke {
namespace {

constexpr std::string_view kGoesOn = "##";
constexpr int64_t kMaxWord = 100;  // characters

// Normal pieces that go on with a word, or those that begin one, in byte order.
std::vector<int32_t> ids_of(const PieceTable& table, bool go_on) {
  std::vector<int32_t> ids = table.ids_of(PieceType::Normal);
  std::erase_if(ids, [&](int32_t id) {
    const std::string& piece = table.piece(id);
    return (piece.starts_with(kGoesOn) && piece.size() > kGoesOn.size()) != go_on;
  });
  return ids;
}

std::vector<std::string> rests_of(const PieceTable& table) {
  std::vector<std::string> rests(static_cast<size_t>(table.size()));
  for (const int32_t id : ids_of(table, true)) rests[static_cast<size_t>(id)] = table.piece(id).substr(kGoesOn.size());
  return rests;
}

}  // namespace

WordPiece::WordPiece(WordPieceVocabulary v)
    : Tokenizer(PieceTable(std::move(v.pieces), std::move(v.types), PieceType::Unused),
                {.joins_parts = true, .drops_first_blank = true}),
      unk_(v.unk),
      rest_(rests_of(table())),
      first_(table().pieces(), ids_of(table(), false)),
      next_(rest_, ids_of(table(), true)) {
  KE_CHECK(unk_ >= 0 && unk_ < size() && type(unk_) == PieceType::Unknown, ModelCorrupt, "vocabulary: unk is ", unk_,
           "; expected a piece of type 2 (unknown)");
  KE_CHECK(!first_.empty(), ModelCorrupt, "vocabulary: no normal piece begins a word; expected one or more");
}

std::string WordPiece::bytes(int32_t id) const {
  const PieceType kind = type(id);
  if (kind == PieceType::Tag) return table().piece(id);
  if (kind != PieceType::Normal) return {};
  const std::string& rest = rest_[static_cast<size_t>(id)];
  return rest.empty() ? " " + table().piece(id) : rest;
}

void WordPiece::encode_stretch(std::string_view text, bool /*at_start*/, std::vector<int32_t>& ids) const {
  for (const std::string& word : bert_words(text)) {
    const size_t before = ids.size();
    size_t at = 0;
    if (std::count_if(word.begin(), word.end(), [](char c) { return !utf8::is_continuation(c); }) <= kMaxWord) {
      while (at < word.size()) {
        const PieceTrie& trie = at == 0 ? first_ : next_;
        int32_t id = -1;
        size_t end = at;
        int32_t node = PieceTrie::kRoot;
        for (size_t i = at; i < word.size() && (node = trie.child(node, word[i])) >= 0; ++i)
          if (trie.id(node) >= 0) id = trie.id(node), end = i + 1;
        if (id < 0) break;
        ids.push_back(id);
        at = end;
      }
    }
    if (at == word.size()) continue;
    ids.resize(before);
    ids.push_back(unk_);
  }
}

}  // namespace ke
