// A sentencepiece unigram vocabulary with the model's tags (spec: sentencepiece's unigram model, nmt_nfkc normaliser;
// segmentation around tags as transformers and unilm do it).
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "text/normalizer.h"
#include "text/tokenizer.h"

namespace ke {

struct UnigramVocabulary {
  std::vector<std::string> pieces;  // by id
  std::vector<float> scores;        // log-probabilities, by id
  std::vector<int32_t> types;       // PieceType, by id
  std::string charsmap;             // sentencepiece precompiled_charsmap, may be empty
  int32_t unk = 3;
};

// Ids equal sentencepiece's; a run of characters that no piece covers becomes one unk. Blanks around tags do not
// matter. Linear time and memory.
class Unigram final : public Tokenizer {
 public:
  // ModelCorrupt if the vocabulary is inconsistent: as PieceTable, and sizes that differ, an unk that is not of type
  // Unknown, no Normal piece, scores of Normal pieces that are not finite, a broken charsmap.
  explicit Unigram(UnigramVocabulary vocabulary);

  std::string bytes(int32_t id) const override;
  Joining joining(int32_t) const override { return Joining::Whole; }

 private:
  void encode_stretch(std::string_view text, bool at_start, std::vector<int32_t>& ids) const override;

  std::vector<float> scores_;
  int32_t unk_;
  Normalizer normalizer_;
  PieceTrie normal_;
  float unknown_score_;  // the score of a character that no piece covers
};

}  // namespace ke
