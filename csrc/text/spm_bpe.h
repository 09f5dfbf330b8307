// sentencepiece's BPE with byte fallback, LLaMA's kind: characters are merged into the piece of the highest score,
// leftmost on ties; a character that no piece covers becomes its bytes.
#pragma once
#include <string>
#include <vector>

#include "text/bpe_merges.h"
#include "text/normalizer.h"
#include "text/tokenizer.h"

namespace ke {

struct SpmBpeVocabulary {
  std::vector<std::string> pieces;  // by id; bytes are spelled <0x00> to <0xFF>
  std::vector<float> scores;        // by id
  std::vector<int32_t> types;       // PieceType, by id
  std::string charsmap;             // sentencepiece precompiled_charsmap, may be empty
  int32_t unk = 0;
  bool blank_prefix = true;          // a blank is put before a text
  bool prefix_every_stretch = true;  // before each stretch between tags; else only before one that begins the prompt
                                     // (transformers' legacy: true and false)
  bool prefix_before_blank = true;   // also before a stretch that begins with a blank: sentencepiece does, transformers
                                     // does not
  bool fold_blanks = false;          // sentencepiece's remove_extra_whitespaces
};

class SpmBpe final : public Tokenizer {
 public:
  // ModelCorrupt when the vocabulary is inconsistent: as PieceTable, and sizes that differ, an unk that is not of type
  // Unknown, no Normal piece, scores of Normal pieces that are not finite, byte pieces that are not all 256 or none, a
  // broken charsmap.
  explicit SpmBpe(SpmBpeVocabulary vocabulary);

  std::string bytes(int32_t id) const override;
  Joining joining(int32_t id) const override { return type(id) == PieceType::Byte ? Joining::ByteRun : Joining::Whole; }

 private:
  void encode_stretch(std::string_view text, bool at_start, std::vector<int32_t>& ids) const override;

  int32_t unk_;
  bool blank_prefix_, prefix_every_stretch_, prefix_before_blank_, fold_blanks_;
  Normalizer normalizer_;
  PieceTrie normal_;
  std::vector<int32_t> byte_ids_;  // by byte; empty without byte fallback
  MergeTable merges_;
};

}  // namespace ke
