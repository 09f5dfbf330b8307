// Byte-level BPE as in GPT-2. A pretokenizer splits the text, each part begins as its bytes, and listed merges
// join them.
#pragma once
#include <string>
#include <vector>

#include "text/bpe_merges.h"
#include "text/pretokenize.h"
#include "text/tokenizer.h"

namespace ke {

struct ByteBpeVocabulary {
  std::vector<std::string> pieces;  // by id; bytes of Normal pieces are spelled in GPT-2's alphabet ("\u0120the")
  std::vector<int32_t> types;       // PieceType, by id
  std::vector<std::string> merges;  // "left right", the first is merged first
  Pretokenizer pretokenizer = Pretokenizer::Gpt2;
  bool whole_pieces = false;  // a part that is a piece needs no merges (tiktoken, LLaMA 3)
  bool nfc = false;           // texts are brought into normalization form C first (Qwen2)
  // CLIP's: blanks only part words, texts are made small (after form C), and the last piece of a word ends in "</w>",
  // which stands for a blank behind it.
  bool words = false;
};

class ByteBpe final : public Tokenizer {
 public:
  // ModelCorrupt when the vocabulary is inconsistent: as PieceTable, and a Normal piece outside the alphabet, a byte
  // that is no piece (with words, also one that is none at the end of a word), a merge whose parts or whole are no
  // Normal pieces, more than 2^21 merges.
  explicit ByteBpe(ByteBpeVocabulary vocabulary);

  std::string bytes(int32_t id) const override;
  Joining joining(int32_t) const override { return Joining::Bytes; }

 private:
  void encode_stretch(std::string_view text, bool at_start, std::vector<int32_t>& ids) const override;

  Pretokenizer pretokenizer_;
  bool whole_pieces_, nfc_, words_;
  std::vector<std::string> raw_;   // bytes of Normal pieces, by id
  PieceTrie normal_;               // over raw_
  std::vector<int32_t> byte_ids_;  // by byte
  std::vector<int32_t> last_ids_;  // the same at the end of a word
  MergeTable merges_;
};

}  // namespace ke
