// The group of schema rows of a vocabulary, one for each kind of tokenizer (text/load_tokenizer.h), and its checks.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "models/schema.h"

namespace ke {

struct TokenizerConfig {
  int32_t bos = -1, eos = -1, pad = -1, unk = -1;  // -1: there is none
  bool add_bos = true;                             // prompts begin with it
};
// Sentencepiece's unigram model. begins: it has a token that prompts begin with.
Schema unigram_rows(const std::string& architecture, TokenizerConfig& t, bool begins = true);
// Sentencepiece's BPE with byte fallback (LLaMA); padding may be absent.
Schema spm_bpe_rows(const std::string& architecture, TokenizerConfig& t);
// Byte-level BPE (GPT-2); only the end of an answer must be there, which may be a tag. Prompts begin with bos where
// add_bos_token is true.
Schema byte_bpe_rows(const std::string& architecture, TokenizerConfig& t);
// Byte-level BPE of CLIP's words. Texts stand between bos and eos.
Schema clip_bpe_rows(const std::string& architecture, TokenizerConfig& t);

// The vocabulary's arrays, checked against each other and against <architecture>.vocab_size; its kind is that of
// tokenizer.ggml.model, which the rows have checked.
class VocabularyCheck {
 public:
  VocabularyCheck(const GgufFile& file, const std::string& architecture, int64_t vocab);
  VocabularyCheck(const VocabularyCheck&) = delete;
  // Those that are there: begin, end and padding are control tokens and all different (but byte-level BPE may have one
  // for begin and end), unknown is the unknown token.
  void check_special_tokens(const TokenizerConfig& t) const;
  // An id that stands for an image's rows is a tag, a control token or the unknown one: no text gives it by itself.
  void check_placeholder(const std::string& key, int32_t id) const;
  // An id that ends answers is any that is not unused.
  void check_end(const std::string& key, int32_t id) const;
  // Ids of type unused: what fills up a table of embeddings, or was never trained.
  std::vector<int32_t> unused() const;
  // The id of a piece; ModelCorrupt unless it is there and a tag.
  int32_t tag(std::string_view piece) const;

 private:
  int32_t type_of(std::string_view key, int32_t id) const;
  void check_special(const char* key, int32_t id, int32_t type) const;

  const GgufFile& file_;
  const std::string vocab_key_, kind_;
  std::vector<std::string> pieces_;
  std::vector<int32_t> types_;
  std::map<std::string_view, int32_t> ids_;  // views into pieces_
};

}  // namespace ke
