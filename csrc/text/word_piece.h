// BERT's WordPiece, uncased: each word becomes the longest piece that it begins with, then the longest one that goes on
// from there ("##ing"), and so on.
#pragma once
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace ke {

struct WordPieceVocabulary {
  std::vector<std::string> pieces;  // by id; a Normal one that begins with "##" goes on with a word
  std::vector<int32_t> types;       // PieceType, by id
  int32_t unk = 100;                // stands for a word that pieces do not cover, or of more than 100 characters
};

class WordPiece final : public Tokenizer {
 public:
  // ModelCorrupt when the vocabulary is inconsistent: as PieceTable, and an unk that is not of type Unknown, no Normal
  // piece.
  explicit WordPiece(WordPieceVocabulary vocabulary);

  // A blank before each word; what was capital, an accent or a run of blanks does not come back.
  std::string bytes(int32_t id) const override;
  Joining joining(int32_t) const override { return Joining::Whole; }

 private:
  void encode_stretch(std::string_view text, bool at_start, std::vector<int32_t>& ids) const override;

  int32_t unk_;
  std::vector<std::string> rest_;  // by id: of pieces that go on, without "##"
  PieceTrie first_, next_;
};

}  // namespace ke
