#include "text/piece_table.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "base/error.h"
#include "text/utf8.h"

namespace ke {

namespace {

constexpr size_t kMaxPieces = size_t{1} << 20;
constexpr size_t kMaxTotalBytes = size_t{8} << 20;  // of all pieces
constexpr const char* kTypeNames[] = {"", "normal", "unknown", "control", "tag", "unused", "byte"};

}  // namespace

PieceTable::PieceTable(std::vector<std::string> pieces, std::vector<int32_t> types, PieceType last_type)
    : pieces_(std::move(pieces)), types_(std::move(types)) {
  const size_t n = pieces_.size();
  KE_CHECK(n > 0 && n <= kMaxPieces, ModelCorrupt, "vocabulary: ", n, " pieces, 1 to ", kMaxPieces, " are allowed");
  KE_CHECK(types_.size() == n, ModelCorrupt, "vocabulary: ", n, " pieces but ", types_.size(), " types");
  const int32_t last = static_cast<int32_t>(last_type);
  size_t total_bytes = 0;
  for (size_t id = 0; id < n; ++id) {
    const std::string& piece = pieces_[id];
    KE_CHECK(!piece.empty() && piece.size() <= kMaxPieceBytes, ModelCorrupt, "vocabulary: piece ", id, " has ",
             piece.size(), " bytes, 1 to ", kMaxPieceBytes, " are allowed");
    KE_CHECK(utf8::first_ill_formed(piece) == std::string::npos, ModelCorrupt, "vocabulary: piece ", id,
             " is not well-formed UTF-8");
    KE_CHECK(types_[id] >= 1 && types_[id] <= last, ModelCorrupt, "vocabulary: piece ", id, " has type ", types_[id],
             ", 1 (normal) to ", last, " (", kTypeNames[last], ") are known");
    total_bytes += piece.size();
  }
  KE_CHECK(total_bytes <= kMaxTotalBytes, ModelCorrupt, "vocabulary: the pieces have ", total_bytes, " bytes, at most ",
           kMaxTotalBytes, " are allowed");
  by_piece_.resize(n);
  std::iota(by_piece_.begin(), by_piece_.end(), 0);
  std::sort(by_piece_.begin(), by_piece_.end(), [&](int32_t a, int32_t b) { return piece(a) < piece(b); });
  for (size_t i = 1; i < n; ++i) {
    KE_CHECK(piece(by_piece_[i - 1]) != piece(by_piece_[i]), ModelCorrupt, "vocabulary: ids ", by_piece_[i - 1],
             " and ", by_piece_[i], " are the same piece");
  }
}

void PieceTable::check_id(int32_t id) const {
  KE_CHECK(id >= 0 && id < size(), InvalidRequest, "token id ", id, " is outside the vocabulary of ", size());
}

const std::string& PieceTable::checked_piece(int32_t id) const {
  check_id(id);
  return piece(id);
}

PieceType PieceTable::checked_type(int32_t id) const {
  check_id(id);
  return type(id);
}

int32_t PieceTable::find(std::string_view wanted) const {
  const auto hit = std::lower_bound(by_piece_.begin(), by_piece_.end(), wanted,
                                    [&](int32_t id, std::string_view text) { return piece(id) < text; });
  return hit != by_piece_.end() && piece(*hit) == wanted ? *hit : -1;
}

std::vector<int32_t> PieceTable::ids_of(PieceType wanted) const {
  std::vector<int32_t> ids;
  std::copy_if(by_piece_.begin(), by_piece_.end(), std::back_inserter(ids),
               [&](int32_t id) { return type(id) == wanted; });
  return ids;
}

std::string with_blanks(std::string_view piece) {
  constexpr std::string_view kBlankSymbol = "\xE2\x96\x81";
  std::string out;
  for (size_t at = 0; at < piece.size();) {
    const size_t blank = std::min(piece.find(kBlankSymbol, at), piece.size());
    out.append(piece, at, blank - at);
    if (blank == piece.size()) break;
    out += ' ';
    at = blank + kBlankSymbol.size();
  }
  return out;
}

}  // namespace ke
