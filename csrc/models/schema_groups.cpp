#include "models/schema_groups.h"

#include <cmath>

#include "format/utf8.h"

namespace ke {
namespace {

enum PieceTypeId : int32_t { unknown_piece = 2, control_piece = 3, tag_piece = 4, last_piece_type = 5 };

void check_heads(const GgufFile& file, const char* part, int64_t width, int64_t heads) {
  check_file(file, width % heads == 0 && width / heads % 8 == 0 && width / heads <= 256, "the ", part, " has ", heads,
             " heads in a width of ", width, "; expected heads of 8, 16, 24, ... or 256 values");
}

}  // namespace

// Lower bounds keep later sizes positive; upper bounds keep every product of two within 64 bits and every table within
// what a machine of today holds.

Schema general_rows(const std::string& architecture, GeneralConfig& g) {
  return {
      fixed_text("general.architecture", architecture),
      optional(text("general.name", &g.name)),
      optional(whole("general.alignment", 8, 65536, nullptr, "a power of two (format/gguf.h)")),
      optional(whole("general.quantization_version", 2, 2, nullptr)),
      optional(whole("general.file_type", 0, 1024, nullptr)),
      optional(text(architecture + ".notice", &g.notice)),
      optional(text(architecture + ".trained_tasks", &g.trained_tasks)),
      optional(list(architecture + ".checksum.sha256", MetaType::String, 64, 64, "one for each tensor")),
  };
}

void check_checksums(const GgufFile& file, const std::string& architecture) {
  const std::string key = architecture + ".checksum.sha256";
  if (!file.has(key)) return;
  const std::vector<std::string> sums = file.strings(key);
  check_count(file, key, sums.size(), file.tensors().size(), "one for each tensor");
  for (size_t i = 0; i < sums.size(); ++i)
    check_file(file, sums[i].size() == 64 && sums[i].find_first_not_of("0123456789abcdef") == std::string::npos, key,
               "[", i, "] is ", quoted(sums[i]), "; expected 64 hexadecimal digits");
}

Schema vision_rows(const std::string& architecture, VisionConfig& v) {
  return {
      fixed_flag("clip.has_vision_encoder", true),
      fixed_text("clip.projector_type", architecture),
      fixed_flag("clip.use_gelu", false),  // quick gelu
      named("vision.image_size", whole("clip.vision.image_size", 1, 4096, &v.image_size, "at most 16384 patches")),
      named("vision.patch_size",
            whole("clip.vision.patch_size", 1, 256, &v.patch_size, "divides clip.vision.image_size")),
      named("vision.width",
            whole("clip.vision.embedding_length", 8, 65536, &v.width, "a multiple of heads of 8, 16, ... 256")),
      named("vision.ff_width", whole("clip.vision.feed_forward_length", 8, 262144, &v.ff_width)),
      named("vision.layers", whole("clip.vision.block_count", 1, 512, &v.layers)),
      whole("clip.vision.projection_dim", 8, 65536, &v.projection, "equals " + architecture + ".embedding_length"),
      named("vision.heads",
            whole("clip.vision.attention.head_count", 1, 1024, &v.heads, "divides clip.vision.embedding_length")),
      named("vision.eps", real("clip.vision.attention.layer_norm_epsilon", 1e-12, 0.1, &v.eps)),
      named("vision.mean", triple("clip.vision.image_mean", -1, 2, &v.mean)),
      named("vision.std", triple("clip.vision.image_std", 1e-3, 1e3, &v.std)),
  };
}

void check_vision(const GgufFile& file, const VisionConfig& v) {
  check_heads(file, "vision encoder", v.width, v.heads);
  check_file(file, v.image_size % v.patch_size == 0, "clip.vision.image_size is ", v.image_size,
             "; expected a multiple of clip.vision.patch_size, ", v.patch_size);
  check_file(file, v.patches() <= 16384, "pictures have ", v.patches(), " patches; at most 16384 are supported");
}

Schema decoder_rows(const std::string& architecture, DecoderConfig& d) {
  const std::string& a = architecture;
  return {
      named("decoder.context", whole(a + ".context_length", 8, 131072, &d.context,
                                     "times " + a + ".embedding_length at most 2^28; room for a picture and 4 tokens")),
      named("decoder.width",
            whole(a + ".embedding_length", 8, 65536, &d.width, "a multiple of heads of 8, 16, ... 256")),
      named("decoder.layers", whole(a + ".block_count", 1, 512, &d.layers)),
      named("decoder.ff_width", whole(a + ".feed_forward_length", 8, 262144, &d.ff_width)),
      named("decoder.heads",
            whole(a + ".attention.head_count", 1, 1024, &d.heads, "divides " + a + ".embedding_length")),
      named("decoder.eps", real(a + ".attention.layer_norm_epsilon", 1e-12, 0.1, &d.eps)),
      named("decoder.vocab", whole(a + ".vocab_size", 16, 1 << 20, &d.vocab, "the length of the tokenizer's arrays")),
  };
}

void check_decoder(const GgufFile& file, const std::string& architecture, const DecoderConfig& d) {
  check_heads(file, "decoder", d.width, d.heads);
  check_file(file, d.context * d.width <= int64_t{1} << 28, architecture, ".context_length times ", architecture,
             ".embedding_length is ", d.context * d.width, "; at most ", int64_t{1} << 28, " are supported");
}

Schema generation_rows(const std::string& architecture, GenerationConfig& g) {
  return {
      named("max_new_tokens", whole(architecture + ".generation.max_new_tokens", 1, 131072, &g.max_new_tokens,
                                    "at most " + architecture + ".context_length")),
      named("no_repeat_ngram_size",
            whole(architecture + ".generation.no_repeat_ngram_size", 0, 131072, &g.no_repeat_ngram_size)),
  };
}

void check_generation(const GgufFile& file, const std::string& architecture, const GenerationConfig& g,
                      const DecoderConfig& d) {
  check_file(file, g.max_new_tokens <= d.context, architecture, ".generation.max_new_tokens is ", g.max_new_tokens,
             "; expected at most ", architecture, ".context_length, ", d.context);
}

Schema slot_rows(const std::string& architecture, ImageSlots& s) {
  return {
      named("latents",
            whole(architecture + ".image_token_count", 1, 4096, &s.count, "fits the context and the vocabulary")),
      token_id(architecture + ".first_slot_token_id", &s.first, "room for a picture's slots in the vocabulary"),
  };
}

void check_slots(const GgufFile& file, const std::string& architecture, const ImageSlots& s, const DecoderConfig& d) {
  check_file(file, s.count + 4 <= d.context, architecture, ".context_length is ", d.context,
             "; expected room for a picture's ", s.count, " tokens and 4 more");
  check_file(file, s.first + s.count <= d.vocab, architecture, ".first_slot_token_id is ", s.first,
             "; expected room for ", s.count, " slots within the vocabulary of ", d.vocab);
}

Schema prompt_rows(const std::string& architecture, PromptFormats& p) {
  return {
      text(architecture + ".prompt.caption", &p.caption),
      text(architecture + ".prompt.caption_detailed", &p.caption_detailed),
      text(architecture + ".prompt.question", &p.question, "holds {question}"),
  };
}

Schema grounding_prompt_rows(const std::string& architecture, PromptFormats& p) {
  return {
      text(architecture + ".prompt.locate", &p.locate, "holds {phrase}"),
      text(architecture + ".prompt.describe", &p.describe, "holds {boxes}"),
      text(architecture + ".prompt.grounding", &p.grounding),
  };
}

void check_prompts(const GgufFile& file, const std::string& architecture, bool grounding) {
  PromptFormats unused;
  Schema rows = prompt_rows(architecture, unused);
  if (grounding) rows = rows + grounding_prompt_rows(architecture, unused);
  for (const SchemaRow& row : rows) {
    if (row.rule.empty()) continue;
    const std::string place = row.rule.substr(row.rule.find('{')), format = file.string(row.key);
    check_file(file, format.find(place) != std::string::npos, row.key, " is ", quoted(format), "; expected ", place,
               " in it");
  }
}

Schema unigram_rows(const std::string& architecture, TokenizerConfig& t) {
  const std::string size = architecture + ".vocab_size of them";
  return {
      fixed_text("tokenizer.ggml.model", "t5"),  // llama.cpp's name of sentencepiece unigram
      list("tokenizer.ggml.tokens", MetaType::String, 1, 1024, size + ", all different"),
      list("tokenizer.ggml.scores", MetaType::Float32, -1e30, 1e30, size),
      list("tokenizer.ggml.token_type", MetaType::Int32, 1, 5, size),
      named("bos", token_id("tokenizer.ggml.bos_token_id", &t.bos, "a control token of its own")),
      named("eos", token_id("tokenizer.ggml.eos_token_id", &t.eos, "a control token of its own")),
      named("unk", token_id("tokenizer.ggml.unknown_token_id", &t.unk, "the unknown token")),
      named("pad", token_id("tokenizer.ggml.padding_token_id", &t.pad, "a control token of its own")),
      optional(fixed_flag("tokenizer.ggml.add_bos_token", true)),
      fixed_flag("tokenizer.ggml.add_space_prefix", true),
      fixed_flag("tokenizer.ggml.remove_extra_whitespaces", true),
      list("tokenizer.ggml.precompiled_charsmap", MetaType::UInt8, 0, 255,
           "at most 4 MiB; sentencepiece's compiled map"),
  };
}

VocabularyCheck::VocabularyCheck(const GgufFile& file, const std::string& architecture, int64_t vocab)
    : file_(file),
      vocab_key_(architecture + ".vocab_size"),
      pieces_(file.strings("tokenizer.ggml.tokens")),
      types_(file.ints("tokenizer.ggml.token_type")) {
  const std::vector<float> scores = file.floats("tokenizer.ggml.scores");
  const uint64_t count = static_cast<uint64_t>(vocab);
  check_count(file, "tokenizer.ggml.tokens", pieces_.size(), count, vocab_key_);
  check_count(file, "tokenizer.ggml.token_type", types_.size(), count, vocab_key_);
  check_count(file, "tokenizer.ggml.scores", scores.size(), count, vocab_key_);

  for (uint64_t i = 0; i < count; ++i) {
    check_file(file, !pieces_[i].empty() && pieces_[i].size() <= 1024 && is_utf8(pieces_[i]),
               "tokenizer.ggml.tokens: token ", i, " has ", pieces_[i].size(),
               " bytes; expected 1..1024 of valid UTF-8");
    const auto [at, fresh] = ids_.emplace(pieces_[i], static_cast<int32_t>(i));
    check_file(file, fresh, "tokenizer.ggml.tokens: token ", i, " is ", quoted(pieces_[i]), ", as is token ",
               at->second, "; expected all different");
    check_file(file, types_[i] >= 1 && types_[i] <= last_piece_type, "tokenizer.ggml.token_type: token ", i,
               " has type ", types_[i], "; expected 1..", static_cast<int>(last_piece_type));
    check_file(file, std::fabs(scores[i]) <= 1e30f, "tokenizer.ggml.scores: token ", i, " has score ", scores[i],
               "; expected a finite number of at most 1e30");
  }
}

void VocabularyCheck::check_special_tokens(const TokenizerConfig& t) const {
  check_special("tokenizer.ggml.bos_token_id", t.bos, control_piece);
  check_special("tokenizer.ggml.eos_token_id", t.eos, control_piece);
  check_special("tokenizer.ggml.padding_token_id", t.pad, control_piece);
  check_special("tokenizer.ggml.unknown_token_id", t.unk, unknown_piece);
  check_file(file_, t.bos != t.eos && t.bos != t.pad && t.eos != t.pad,
             "tokenizer.ggml.{bos,eos,padding}_token_id: begin, end and padding share a token id: ", t.bos, ", ", t.eos,
             ", ", t.pad, "; expected three");
}

void VocabularyCheck::check_special(const char* key, int32_t id, int32_t type) const {
  check_file(file_, static_cast<size_t>(id) < types_.size(), key, " is ", id, "; expected less than ", vocab_key_, ", ",
             types_.size());
  const int32_t found = types_[static_cast<size_t>(id)];
  check_file(file_, found == type, key, " is ", id, ", a token of type ", found, "; expected type ", type);
}

int32_t VocabularyCheck::tag(std::string_view piece) const {
  const auto found = ids_.find(piece);
  check_file(file_, found != ids_.end(), "tokenizer.ggml.tokens lacks ", piece);
  const int32_t type = types_[static_cast<size_t>(found->second)];
  check_file(file_, type == tag_piece, "token ", piece, " has type ", type, "; expected ", static_cast<int>(tag_piece));
  return found->second;
}

}  // namespace ke
