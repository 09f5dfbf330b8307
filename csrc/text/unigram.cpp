// Unigram segmentation as sentencepiece does it (its unigram_model.cc, EncodeOptimized).
#include "text/unigram.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "text/utf8.h"

namespace ke {

namespace {

constexpr float kUnknownPenalty = 10.0f;  // sentencepiece's kUnkPenalty

PieceTable checked_table(UnigramVocabulary& v) {
  const size_t n = v.pieces.size();
  KE_CHECK(v.scores.size() == n && v.types.size() == n, ModelCorrupt, "vocabulary: ", n, " pieces but ",
           v.scores.size(), " scores and ", v.types.size(), " types");
  PieceTable table(std::move(v.pieces), std::move(v.types), PieceType::Unused);
  KE_CHECK(v.unk >= 0 && v.unk < table.size() && table.type(v.unk) == PieceType::Unknown, ModelCorrupt,
           "vocabulary: id ", v.unk, " is named as the unknown piece of ", n, " pieces but is not of type Unknown");
  return table;
}

float lowest_score(const PieceTable& table, const std::vector<float>& scores) {
  float lowest = std::numeric_limits<float>::max();
  const std::vector<int32_t> ids = table.ids_of(PieceType::Normal);
  KE_CHECK(!ids.empty(), ModelCorrupt, "vocabulary: there is no piece of type Normal");
  for (const int32_t id : ids) {
    const float score = scores[static_cast<size_t>(id)];
    KE_CHECK(std::isfinite(score), ModelCorrupt, "vocabulary: the score of piece ", id, " is not finite");
    lowest = std::min(lowest, score);
  }
  return lowest;
}

}  // namespace

Unigram::Unigram(UnigramVocabulary v)
    : Tokenizer(checked_table(v), {.joins_parts = false, .drops_first_blank = true}),
      scores_(std::move(v.scores)),
      unk_(v.unk),
      normalizer_(v.charsmap),
      normal_(table().trie_of(PieceType::Normal)),
      unknown_score_(lowest_score(table(), scores_) - kUnknownPenalty) {}

std::string Unigram::bytes(int32_t id) const {
  const PieceType kind = type(id);
  return kind == PieceType::Normal || kind == PieceType::Tag ? with_blanks(table().piece(id)) : std::string();
}

// Viterbi over the bytes of the normalised text: best_ending[i] is the best path that ends before byte i. On equal
// scores the path found first stays, that is the one whose last piece is longest. Sums are float, as in sentencepiece:
// their rounding decides near ties.
void Unigram::encode_stretch(std::string_view text, bool /*at_start*/, std::vector<int32_t>& ids) const {
  const std::string normalized = normalizer_.normalize(text);
  const size_t size = normalized.size();
  struct Path {
    float score = 0;
    int32_t start = -1;  // byte where the last piece begins; -1: no path ends here
    int32_t id = -1;
  };
  std::vector<Path> best_ending(size + 1);
  for (size_t start = 0; start < size;) {
    const float so_far = best_ending[start].score;
    const auto offer = [&](size_t end, float score, int32_t id) {
      Path& path = best_ending[end];
      if (path.start >= 0 && score <= path.score) return;
      path = {score, static_cast<int32_t>(start), id};
    };
    const size_t character = utf8::character_length(normalized, start);
    KE_ASSERT(character > 0);
    bool covered = false;  // does a piece consist of just this character?
    int32_t node = PieceTrie::kRoot;
    for (size_t end = start; end < size;) {
      node = normal_.child(node, normalized[end++]);
      if (node < 0) break;
      const int32_t id = normal_.id(node);
      if (id < 0) continue;
      offer(end, scores_[static_cast<size_t>(id)] + so_far, id);
      covered = covered || end - start == character;
    }
    if (!covered) offer(start + character, unknown_score_ + so_far, unk_);
    start += character;
  }
  const size_t first = ids.size();
  for (size_t end = size; end > 0;) {
    const Path& path = best_ending[end];
    KE_ASSERT(path.start >= 0);
    const bool fuses = path.id == unk_ && ids.size() > first && ids.back() == unk_;
    if (!fuses) ids.push_back(path.id);
    end = static_cast<size_t>(path.start);
  }
  std::reverse(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end());
}

}  // namespace ke
