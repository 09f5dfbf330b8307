// Text <-> ids for a sentencepiece unigram vocabulary with the model's tags (spec: sentencepiece's unigram model,
// nmt_nfkc normaliser; segmentation around tags as transformers and unilm do it).
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ke {

enum class PieceType : int32_t { Normal = 1, Unknown = 2, Control = 3, Tag = 4, Unused = 5 };  // GGUF token types

struct Vocabulary {
  std::vector<std::string> pieces;  // by id
  std::vector<float> scores;        // log-probabilities, by id
  std::vector<int32_t> types;       // PieceType, by id
  std::string charsmap;             // sentencepiece precompiled_charsmap, may be empty
  int32_t unk = 3;
};

class Tokenizer {
 public:
  // ModelCorrupt when the vocabulary is inconsistent: sizes that differ, types outside 1..5, an unk that is not of type
  // Unknown, no Normal piece, scores of Normal pieces that are not finite, pieces that are empty, equal to another, not
  // UTF-8 or above 1024 bytes (8 MiB in all, 2^20 pieces), a broken charsmap.
  explicit Tokenizer(Vocabulary vocabulary);
  ~Tokenizer();

  // Plain text: tag and control strings inside are ordinary characters. Equal to sentencepiece's ids; runs of
  // characters that no piece covers become one unk. Linear time and memory. InvalidRequest for ill-formed UTF-8 (with
  // the byte offset) and for more than 16 MiB.
  std::vector<int32_t> encode(std::string_view text) const;
  // Strings of Tag pieces become those ids (leftmost, then longest); every stretch of text between tags is encoded on
  // its own, so blanks around tags do not matter. Control strings ("</s>") stay text. Errors as encode.
  std::vector<int32_t> encode_with_tags(std::string_view text) const;
  // Concatenates text(id) of all ids, without the blank that the first of them begins with. InvalidRequest for an id
  // outside 0..size-1, as in all functions below.
  std::string decode(const std::vector<int32_t>& ids) const;
  // What one id adds to a decoded text: the piece with U+2581 as blank, tags as they are; empty for Control, Unknown
  // and Unused pieces, as transformers' skip_special_tokens does.
  std::string text(int32_t id) const;

  int32_t size() const;
  const std::string& piece(int32_t id) const;
  PieceType type(int32_t id) const;
  int32_t find(std::string_view piece) const;  // -1 when there is none

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ke
