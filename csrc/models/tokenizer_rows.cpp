#include "models/tokenizer_rows.h"

#include <cmath>

#include "format/utf8.h"

namespace ke {
namespace {

enum PieceTypeId : int32_t { unknown_piece = 2, control_piece = 3, tag_piece = 4, unused_piece = 5, byte_piece = 6 };

SchemaRow tokens_row(const std::string& size) {
  return list("tokenizer.ggml.tokens", MetaType::String, 1, 1024, size + ", all different");
}
SchemaRow scores_row(const std::string& size) {
  return list("tokenizer.ggml.scores", MetaType::Float32, -1e30, 1e30, size);
}
SchemaRow types_row(const std::string& size, PieceTypeId last) {
  return list("tokenizer.ggml.token_type", MetaType::Int32, 1, last, size);
}
SchemaRow bos_row(TokenizerConfig& t) {
  return named("bos", token_id("tokenizer.ggml.bos_token_id", &t.bos, "a control token of its own"));
}
SchemaRow eos_row(TokenizerConfig& t) {
  return named("eos", token_id("tokenizer.ggml.eos_token_id", &t.eos, "a control token of its own"));
}
SchemaRow unk_row(TokenizerConfig& t) {
  return named("unk", token_id("tokenizer.ggml.unknown_token_id", &t.unk, "the unknown token"));
}
SchemaRow pad_row(TokenizerConfig& t) {
  return named("pad", token_id("tokenizer.ggml.padding_token_id", &t.pad, "a control token of its own"));
}
SchemaRow merges_row() {
  return list("tokenizer.ggml.merges", MetaType::String, 3, 2049,
              "two pieces with a blank between them; first goes first");
}
SchemaRow charsmap_row() {
  return list("tokenizer.ggml.precompiled_charsmap", MetaType::UInt8, 0, 255,
              "at most 4 MiB; sentencepiece's compiled map");
}

}  // namespace

Schema unigram_rows(const std::string& architecture, TokenizerConfig& t, bool begins) {
  const std::string size = architecture + ".vocab_size of them";
  const Schema begin = {bos_row(t), optional(fixed_flag("tokenizer.ggml.add_bos_token", true))};
  const Schema rows = {
      fixed_text("tokenizer.ggml.model", "t5"),  // llama.cpp's name of sentencepiece unigram
      tokens_row(size),
      scores_row(size),
      types_row(size, unused_piece),
      eos_row(t),
      unk_row(t),
      pad_row(t),
      fixed_flag("tokenizer.ggml.add_space_prefix", true),
      fixed_flag("tokenizer.ggml.remove_extra_whitespaces", true),
      charsmap_row(),
  };
  return begins ? rows + begin : rows;
}

Schema spm_bpe_rows(const std::string& architecture, TokenizerConfig& t) {
  const std::string size = architecture + ".vocab_size of them";
  return {
      fixed_text("tokenizer.ggml.model", "llama"),  // llama.cpp's name of sentencepiece BPE
      tokens_row(size),
      scores_row(size),
      types_row(size, byte_piece),
      bos_row(t),
      eos_row(t),
      unk_row(t),
      optional(pad_row(t)),
      optional(fixed_flag("tokenizer.ggml.add_bos_token", true)),
      flag("tokenizer.ggml.add_space_prefix"),
      flag("tokenizer.ggml.remove_extra_whitespaces"),
      optional(flag("tokenizer.ggml.space_prefix_every_segment")),
      optional(flag("tokenizer.ggml.space_prefix_before_space")),
      optional(charsmap_row()),
  };
}

Schema byte_bpe_rows(const std::string& architecture, TokenizerConfig& t) {
  t.add_bos = false;
  const std::string size = architecture + ".vocab_size of them";
  return {
      fixed_text("tokenizer.ggml.model", "gpt2"),  // llama.cpp's name of byte-level BPE
      one_text_of("tokenizer.ggml.pre", {"gpt-2", "llama-bpe", "dbrx", "qwen2"}, nullptr),
      optional(one_text_of("tokenizer.ggml.normalizer", {"nfc"}, nullptr)),
      tokens_row(size),
      types_row(size, unused_piece),  // bytes are plain pieces
      merges_row(),
      optional(bos_row(t)),
      eos_row(t),
      optional(unk_row(t)),
      optional(pad_row(t)),
      optional(flag("tokenizer.ggml.add_bos_token", &t.add_bos)),
      optional(fixed_flag("tokenizer.ggml.add_space_prefix", false)),
  };
}

Schema clip_bpe_rows(const std::string& architecture, TokenizerConfig& t) {
  const std::string size = architecture + ".vocab_size of them";
  return {
      fixed_text("tokenizer.ggml.model", "gpt2"),
      fixed_text("tokenizer.ggml.pre", "clip"),
      tokens_row(size),
      types_row(size, unused_piece),
      merges_row(),
      bos_row(t),
      eos_row(t),
      optional(pad_row(t)),
      optional(fixed_flag("tokenizer.ggml.add_bos_token", true)),
      optional(fixed_flag("tokenizer.ggml.add_space_prefix", false)),
  };
}

VocabularyCheck::VocabularyCheck(const GgufFile& file, const std::string& architecture, int64_t vocab)
    : file_(file),
      vocab_key_(architecture + ".vocab_size"),
      kind_(file.string("tokenizer.ggml.model")),
      pieces_(file.strings("tokenizer.ggml.tokens")),
      types_(file.ints("tokenizer.ggml.token_type")) {
  const bool scored = kind_ != "gpt2";
  const int32_t last_type = kind_ == "llama" ? byte_piece : unused_piece;
  const std::vector<float> scores = scored ? file.floats("tokenizer.ggml.scores") : std::vector<float>();
  const uint64_t count = static_cast<uint64_t>(vocab);
  check_count(file, "tokenizer.ggml.tokens", pieces_.size(), count, vocab_key_);
  check_count(file, "tokenizer.ggml.token_type", types_.size(), count, vocab_key_);
  if (scored) check_count(file, "tokenizer.ggml.scores", scores.size(), count, vocab_key_);

  for (uint64_t i = 0; i < count; ++i) {
    check_file(file, !pieces_[i].empty() && pieces_[i].size() <= 1024 && is_utf8(pieces_[i]),
               "tokenizer.ggml.tokens: token ", i, " has ", pieces_[i].size(),
               " bytes; expected 1..1024 of valid UTF-8");
    const auto [at, fresh] = ids_.emplace(pieces_[i], static_cast<int32_t>(i));
    check_file(file, fresh, "tokenizer.ggml.tokens: token ", i, " is ", quoted(pieces_[i]), ", as is token ",
               at->second, "; expected all different");
    check_file(file, types_[i] >= 1 && types_[i] <= last_type, "tokenizer.ggml.token_type: token ", i, " has type ",
               types_[i], "; expected 1..", last_type);
    if (!scored) continue;
    check_file(file, std::fabs(scores[i]) <= 1e30f, "tokenizer.ggml.scores: token ", i, " has score ", scores[i],
               "; expected a finite number of at most 1e30");
  }
}

void VocabularyCheck::check_special_tokens(const TokenizerConfig& t) const {
  // LLaMA-2's <s> and ChatML's <|im_end|> may stand in the formats of prompts, whose tags alone become tokens.
  const bool begins = kind_ == "llama" && type_of("tokenizer.ggml.bos_token_id", t.bos) == tag_piece;
  if (!begins) check_special("tokenizer.ggml.bos_token_id", t.bos, control_piece);
  const bool tag = kind_ == "gpt2" && t.eos >= 0 && type_of("tokenizer.ggml.eos_token_id", t.eos) == tag_piece;
  if (!tag) check_special("tokenizer.ggml.eos_token_id", t.eos, control_piece);
  check_special("tokenizer.ggml.padding_token_id", t.pad, control_piece);
  check_special("tokenizer.ggml.unknown_token_id", t.unk, unknown_piece);
  const auto same = [](int32_t a, int32_t b) { return a >= 0 && a == b; };
  check_file(file_, (kind_ == "gpt2" || !same(t.bos, t.eos)) && !same(t.bos, t.pad) && !same(t.eos, t.pad),
             "tokenizer.ggml.{bos,eos,padding}_token_id: begin, end and padding share a token id: ", t.bos, ", ", t.eos,
             ", ", t.pad, "; expected three");
}

void VocabularyCheck::check_placeholder(const std::string& key, int32_t id) const {
  const int32_t type = type_of(key, id);
  check_file(file_, type == tag_piece || type == control_piece || type == unknown_piece, key, " is ", id,
             ", a token of type ", type, "; expected type 2, 3 or 4");
}

void VocabularyCheck::check_end(const std::string& key, int32_t id) const {
  const int32_t type = type_of(key, id);
  check_file(file_, type != unused_piece, key, " is ", id, ", an unused token; expected another type");
}

int32_t VocabularyCheck::type_of(std::string_view key, int32_t id) const {
  check_file(file_, static_cast<size_t>(id) < types_.size(), key, " is ", id, "; expected less than ", vocab_key_, ", ",
             types_.size());
  return types_[static_cast<size_t>(id)];
}

void VocabularyCheck::check_special(const char* key, int32_t id, int32_t type) const {
  if (id < 0) return;  // the rows say whether it may be absent
  const int32_t found = type_of(key, id);
  check_file(file_, found == type, key, " is ", id, ", a token of type ", found, "; expected type ", type);
}

std::vector<int32_t> VocabularyCheck::unused() const {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < types_.size(); ++i)
    if (types_[i] == unused_piece) ids.push_back(static_cast<int32_t>(i));
  return ids;
}

int32_t VocabularyCheck::tag(std::string_view piece) const {
  const auto found = ids_.find(piece);
  check_file(file_, found != ids_.end(), "tokenizer.ggml.tokens lacks ", piece);
  const int32_t type = types_[static_cast<size_t>(found->second)];
  check_file(file_, type == tag_piece, "token ", piece, " has type ", type, "; expected ", static_cast<int>(tag_piece));
  return found->second;
}

}  // namespace ke
