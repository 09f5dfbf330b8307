// Unigram segmentation as sentencepiece does it (its unigram_model.cc, EncodeOptimized), tags, and decoding.
#include "text/tokenizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "text/normalizer.h"
#include "text/piece_trie.h"
#include "text/utf8.h"

namespace ke {

namespace {

constexpr size_t kMaxPieces = size_t{1} << 20;
constexpr size_t kMaxPieceBytes = 1024;             // bounds the work per input byte
constexpr size_t kMaxTotalBytes = size_t{8} << 20;  // of all pieces
constexpr size_t kMaxTextBytes = size_t{16} << 20;  // of one text
constexpr float kUnknownPenalty = 10.0f;            // sentencepiece's kUnkPenalty
constexpr std::string_view kBlankSymbol = "\xE2\x96\x81";

void check_text(std::string_view text) {
  KE_CHECK(text.size() <= kMaxTextBytes, InvalidRequest, "the text has ", text.size(), " bytes, at most ",
           kMaxTextBytes, " are allowed");
  const size_t bad = utf8::first_ill_formed(text);
  KE_CHECK(bad == std::string_view::npos, InvalidRequest, "the text is not well-formed UTF-8 at byte ", bad);
}

}  // namespace

struct Tokenizer::State {
  Vocabulary vocabulary;
  Normalizer normalizer;
  std::vector<int32_t> by_piece;  // every id, in byte order of its piece
  PieceTrie normal, tags;
  float unknown_score = 0;  // the score of a character that no piece covers

  explicit State(Vocabulary v) : vocabulary(std::move(v)), normalizer(vocabulary.charsmap) {
    check_vocabulary();
    by_piece.resize(vocabulary.pieces.size());
    std::iota(by_piece.begin(), by_piece.end(), 0);
    std::sort(by_piece.begin(), by_piece.end(), [&](int32_t a, int32_t b) { return piece(a) < piece(b); });
    for (size_t i = 1; i < by_piece.size(); ++i) {
      KE_CHECK(piece(by_piece[i - 1]) != piece(by_piece[i]), ModelCorrupt, "vocabulary: ids ", by_piece[i - 1], " and ",
               by_piece[i], " are the same piece");
    }
    normal = trie_of(PieceType::Normal);
    tags = trie_of(PieceType::Tag);
  }

  const std::string& piece(int32_t id) const { return vocabulary.pieces[static_cast<size_t>(id)]; }
  PieceType type(int32_t id) const { return static_cast<PieceType>(vocabulary.types[static_cast<size_t>(id)]); }

  void check_vocabulary();
  PieceTrie trie_of(PieceType type) const;
  void check_id(int32_t id) const;
  void encode_stretch(std::string_view text, std::vector<int32_t>& ids) const;
};

void Tokenizer::State::check_vocabulary() {
  const Vocabulary& v = vocabulary;
  const size_t n = v.pieces.size();
  KE_CHECK(n > 0 && n <= kMaxPieces, ModelCorrupt, "vocabulary: ", n, " pieces, 1 to ", kMaxPieces, " are allowed");
  KE_CHECK(v.scores.size() == n && v.types.size() == n, ModelCorrupt, "vocabulary: ", n, " pieces but ",
           v.scores.size(), " scores and ", v.types.size(), " types");
  KE_CHECK(v.unk >= 0 && static_cast<size_t>(v.unk) < n && type(v.unk) == PieceType::Unknown, ModelCorrupt,
           "vocabulary: id ", v.unk, " is named as the unknown piece of ", n, " pieces but is not of type Unknown");
  size_t total_bytes = 0;
  float min_score = std::numeric_limits<float>::max();
  bool any_normal = false;
  for (size_t id = 0; id < n; ++id) {
    const std::string& piece = v.pieces[id];
    KE_CHECK(!piece.empty() && piece.size() <= kMaxPieceBytes, ModelCorrupt, "vocabulary: piece ", id, " has ",
             piece.size(), " bytes, 1 to ", kMaxPieceBytes, " are allowed");
    KE_CHECK(utf8::first_ill_formed(piece) == std::string::npos, ModelCorrupt, "vocabulary: piece ", id,
             " is not well-formed UTF-8");
    KE_CHECK(v.types[id] >= 1 && v.types[id] <= 5, ModelCorrupt, "vocabulary: piece ", id, " has type ", v.types[id],
             ", 1 (normal) to 5 (unused) are known");
    total_bytes += piece.size();
    if (v.types[id] != static_cast<int32_t>(PieceType::Normal)) continue;
    KE_CHECK(std::isfinite(v.scores[id]), ModelCorrupt, "vocabulary: the score of piece ", id, " is not finite");
    min_score = std::min(min_score, v.scores[id]);
    any_normal = true;
  }
  KE_CHECK(any_normal, ModelCorrupt, "vocabulary: there is no piece of type Normal");
  KE_CHECK(total_bytes <= kMaxTotalBytes, ModelCorrupt, "vocabulary: the pieces have ", total_bytes, " bytes, at most ",
           kMaxTotalBytes, " are allowed");
  unknown_score = min_score - kUnknownPenalty;
}

PieceTrie Tokenizer::State::trie_of(PieceType wanted) const {
  std::vector<int32_t> ids;
  std::copy_if(by_piece.begin(), by_piece.end(), std::back_inserter(ids),
               [&](int32_t id) { return type(id) == wanted; });
  return PieceTrie(vocabulary.pieces, ids);
}

void Tokenizer::State::check_id(int32_t id) const {
  KE_CHECK(id >= 0 && static_cast<size_t>(id) < vocabulary.pieces.size(), InvalidRequest, "token id ", id,
           " is outside the vocabulary of ", vocabulary.pieces.size());
}

// Viterbi over the bytes of the normalised text: best_ending[i] is the best path that ends before byte i. On equal
// scores the path found first stays, that is the one whose last piece is longest. Sums are float, as in sentencepiece:
// their rounding decides near ties.
void Tokenizer::State::encode_stretch(std::string_view text, std::vector<int32_t>& ids) const {
  const std::string normalized = normalizer.normalize(text);
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
      node = normal.child(node, normalized[end++]);
      if (node < 0) break;
      const int32_t id = normal.id(node);
      if (id < 0) continue;
      offer(end, vocabulary.scores[static_cast<size_t>(id)] + so_far, id);
      covered = covered || end - start == character;
    }
    if (!covered) offer(start + character, unknown_score + so_far, vocabulary.unk);
    start += character;
  }
  const size_t first = ids.size();
  for (size_t end = size; end > 0;) {
    const Path& path = best_ending[end];
    KE_ASSERT(path.start >= 0);
    const bool fuses = path.id == vocabulary.unk && ids.size() > first && ids.back() == vocabulary.unk;
    if (!fuses) ids.push_back(path.id);
    end = static_cast<size_t>(path.start);
  }
  std::reverse(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end());
}

Tokenizer::Tokenizer(Vocabulary vocabulary) : state_(std::make_unique<State>(std::move(vocabulary))) {}
Tokenizer::~Tokenizer() = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  check_text(text);
  std::vector<int32_t> ids;
  state_->encode_stretch(text, ids);
  return ids;
}

std::vector<int32_t> Tokenizer::encode_with_tags(std::string_view text) const {
  check_text(text);
  const PieceTrie& tags = state_->tags;
  std::vector<int32_t> ids;
  size_t stretch = 0;  // where the text since the last tag begins
  for (size_t at = 0; at < text.size();) {
    int32_t tag = -1;
    size_t tag_end = at;
    int32_t node = PieceTrie::kRoot;
    for (size_t end = at; end < text.size();) {
      node = tags.child(node, text[end++]);
      if (node < 0) break;
      if (tags.id(node) < 0) continue;
      tag = tags.id(node);
      tag_end = end;
    }
    if (tag < 0) {
      ++at;
      continue;
    }
    state_->encode_stretch(text.substr(stretch, at - stretch), ids);
    ids.push_back(tag);
    at = stretch = tag_end;
  }
  state_->encode_stretch(text.substr(stretch), ids);
  return ids;
}

std::string Tokenizer::text(int32_t id) const {
  const PieceType kind = type(id);
  std::string out;
  if (kind != PieceType::Normal && kind != PieceType::Tag) return out;
  const std::string& piece = state_->piece(id);
  for (size_t at = 0; at < piece.size();) {
    const size_t blank = std::min(piece.find(kBlankSymbol, at), piece.size());
    out.append(piece, at, blank - at);
    if (blank == piece.size()) break;
    out += ' ';
    at = blank + kBlankSymbol.size();
  }
  return out;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string out;
  bool first = true;
  for (const int32_t id : ids) {
    const std::string piece = text(id);
    if (piece.empty()) continue;
    out.append(piece, first && piece[0] == ' ' ? 1 : 0);
    first = false;
  }
  return out;
}

int32_t Tokenizer::size() const { return static_cast<int32_t>(state_->vocabulary.pieces.size()); }

const std::string& Tokenizer::piece(int32_t id) const {
  state_->check_id(id);
  return state_->piece(id);
}

PieceType Tokenizer::type(int32_t id) const {
  state_->check_id(id);
  return state_->type(id);
}

int32_t Tokenizer::find(std::string_view piece) const {
  const auto& order = state_->by_piece;
  const auto hit = std::lower_bound(order.begin(), order.end(), piece,
                                    [&](int32_t id, std::string_view wanted) { return state_->piece(id) < wanted; });
  return hit != order.end() && state_->piece(*hit) == piece ? *hit : -1;
}

}  // namespace ke
