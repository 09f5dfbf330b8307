// The pieces of a vocabulary by id: checked, and found by their bytes.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/piece_trie.h"

namespace ke {

// GGUF's token types.
enum class PieceType : int32_t { Normal = 1, Unknown = 2, Control = 3, Tag = 4, Unused = 5, Byte = 6 };

constexpr size_t kMaxPieceBytes = 1024;  // bounds the work per input byte

class PieceTable {
 public:
  // ModelCorrupt if pieces and types differ in number, if a type is outside 1..last_type, or if a piece is empty,
  // equal to another, not UTF-8 or above 1024 bytes (8 MiB in all, 1 to 2^20 pieces).
  PieceTable(std::vector<std::string> pieces, std::vector<int32_t> types, PieceType last_type);

  int32_t size() const { return static_cast<int32_t>(pieces_.size()); }
  const std::vector<std::string>& pieces() const { return pieces_; }
  const std::string& piece(int32_t id) const { return pieces_[static_cast<size_t>(id)]; }
  PieceType type(int32_t id) const { return static_cast<PieceType>(types_[static_cast<size_t>(id)]); }
  // InvalidRequest for an id outside the vocabulary.
  const std::string& checked_piece(int32_t id) const;
  PieceType checked_type(int32_t id) const;

  int32_t find(std::string_view piece) const;    // -1 if there is none
  std::vector<int32_t> ids_of(PieceType) const;  // in byte order of their pieces
  PieceTrie trie_of(PieceType type) const { return {pieces_, ids_of(type)}; }

 private:
  void check_id(int32_t id) const;

  std::vector<std::string> pieces_;
  std::vector<int32_t> types_;
  std::vector<int32_t> by_piece_;  // every id, in byte order of its piece
};

// The piece with every U+2581 as a blank.
std::string with_blanks(std::string_view piece);

}  // namespace ke
