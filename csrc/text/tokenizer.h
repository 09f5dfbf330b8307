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
  explicit Tokenizer(Vocabulary vocabulary);  // ModelCorrupt when inconsistent
  ~Tokenizer();

  // Plain text: tag and control strings inside are ordinary characters. UTF-8; ill-formed bytes are InvalidRequest.
  std::vector<int32_t> encode(std::string_view text) const;
  // Strings of Tag pieces become those ids; every stretch of text between tags is encoded on its own.
  std::vector<int32_t> encode_with_tags(std::string_view text) const;
  // Concatenates pieces, U+2581 -> blank, without the leading blank of the whole; skips Control, Unknown and Unused
  // pieces as transformers' skip_special_tokens does. Tags stay.
  std::string decode(const std::vector<int32_t>& ids) const;

  int32_t size() const;
  const std::string& piece(int32_t id) const;      // InvalidRequest outside 0..size-1
  int32_t find(std::string_view piece) const;      // -1 when there is none
  PieceType type(int32_t id) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ke
