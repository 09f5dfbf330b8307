// The schema table of KOSMOS-2 files, and the checks between its numbers.
#include "models/kosmos2_config.h"

#include <cmath>
#include <cstdio>
#include <map>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "format/utf8.h"

namespace ke {

namespace {

// A number of the file: its GGUF type follows from where it goes (int64 and int32: uint32; float: float32).
struct Number {
  const char* key;
  std::variant<int64_t*, int32_t*, float*> out;
  double min, max;
};

struct Text {
  const char* key;
  const char* value;  // what it must be; nullptr: any text of at most 4096 bytes
};

constexpr Text texts[] = {
    {"general.architecture", "kosmos2"},  {"clip.projector_type", "kosmos2"},
    {"tokenizer.ggml.model", "t5"},  // llama.cpp's name of sentencepiece unigram
    {"kosmos2.prompt.caption", nullptr},  {"kosmos2.prompt.caption_detailed", nullptr},
    {"kosmos2.prompt.question", nullptr}, {"kosmos2.prompt.locate", nullptr},
    {"kosmos2.prompt.describe", nullptr}, {"kosmos2.prompt.grounding", nullptr},
};

// Whole numbers in full, others in six digits.
std::string number_text(double v) {
  return std::fabs(v) < 1e15 && v == std::floor(v) ? concat(static_cast<int64_t>(v)) : concat(v);
}

enum PieceTypeId : int32_t { unknown_piece = 2, control_piece = 3, tag_piece = 4, last_piece_type = 5 };

class Reader {
 public:
  Reader(const GgufFile& file, Kosmos2Config& config) : file_(file), c_(config) {}

  void read() {
    for (const Text& t : texts) check_text(t);
    check_flag("clip.has_vision_encoder", true);
    check_flag("clip.use_gelu", false);  // false: quick gelu
    if (file_.has("general.quantization_version")) {
      const uint32_t version = file_.u32("general.quantization_version");
      check(version == 2, "general.quantization_version is ", version, "; expected 2");
    }
    read_numbers();
    c_.vision.mean = triple("clip.vision.image_mean", -1, 2);
    c_.vision.std = triple("clip.vision.image_std", 1e-3, 1e3);
    check_sizes();
    check_vocabulary();
  }

 private:
  template <class... Args>
  void check(bool ok, const Args&... what) const {
    KE_CHECK(ok, ModelCorrupt, file_.path(), ": ", what...);
  }

  void check_text(const Text& t) const {
    const std::string found = file_.string(t.key);
    const bool clean = found.size() <= 4096 && is_utf8(found);
    check(clean, t.key, " has ", found.size(), " bytes; expected at most 4096 of valid UTF-8");
    check(!t.value || found == t.value, t.key, " is \"", found, "\"; expected \"", t.value ? t.value : "", '"');
  }

  void check_flag(const char* key, bool expected) const {
    check(file_.boolean(key) == expected, key, " is ", expected ? "false" : "true", "; only ",
          expected ? "true" : "false", " is supported");
  }

  void read_numbers() {
    // The first column of bounds keeps later sizes positive; the second keeps every product of two within 64 bits
    // and every table within what a machine of today holds.
    const Number numbers[] = {
        {"kosmos2.context_length", &c_.decoder.context, 8, 131072},
        {"kosmos2.embedding_length", &c_.decoder.width, 8, 65536},
        {"kosmos2.block_count", &c_.decoder.layers, 1, 512},
        {"kosmos2.feed_forward_length", &c_.decoder.ff_width, 8, 262144},
        {"kosmos2.attention.head_count", &c_.decoder.heads, 1, 1024},
        {"kosmos2.attention.layer_norm_epsilon", &c_.decoder.eps, 1e-12, 0.1},
        {"kosmos2.vocab_size", &c_.decoder.vocab, 16, 1 << 20},
        {"kosmos2.image_token_count", &c_.latents, 1, 4096},
        {"kosmos2.location_bins", &c_.location_bins, 2, 100},
        {"kosmos2.first_slot_token_id", &c_.first_slot, 0, 1 << 20},
        {"kosmos2.generation.max_new_tokens", &c_.max_new_tokens, 1, 131072},
        {"kosmos2.generation.no_repeat_ngram_size", &c_.no_repeat_ngram_size, 0, 131072},
        {"clip.vision.image_size", &c_.vision.image_size, 1, 4096},
        {"clip.vision.patch_size", &c_.vision.patch_size, 1, 256},
        {"clip.vision.embedding_length", &c_.vision.width, 8, 65536},
        {"clip.vision.feed_forward_length", &c_.vision.ff_width, 8, 262144},
        {"clip.vision.block_count", &c_.vision.layers, 1, 512},
        {"clip.vision.projection_dim", &projection_, 8, 65536},
        {"clip.vision.attention.head_count", &c_.vision.heads, 1, 1024},
        {"clip.vision.attention.layer_norm_epsilon", &c_.vision.eps, 1e-12, 0.1},
        {"tokenizer.ggml.bos_token_id", &c_.bos, 0, 1 << 20},
        {"tokenizer.ggml.eos_token_id", &c_.eos, 0, 1 << 20},
        {"tokenizer.ggml.unknown_token_id", &c_.unk, 0, 1 << 20},
        {"tokenizer.ggml.padding_token_id", &c_.pad, 0, 1 << 20},
    };
    for (const Number& n : numbers) {
      const bool real = std::holds_alternative<float*>(n.out);
      const double value = real ? file_.f32(n.key) : static_cast<double>(file_.u32(n.key));
      check(value >= n.min && value <= n.max, n.key, " is ", number_text(value), "; expected ", number_text(n.min),
            "..", number_text(n.max));  // NaN is not in any range
      if (real)
        *std::get<float*>(n.out) = static_cast<float>(value);
      else if (std::holds_alternative<int32_t*>(n.out))
        *std::get<int32_t*>(n.out) = static_cast<int32_t>(value);
      else
        *std::get<int64_t*>(n.out) = static_cast<int64_t>(value);
    }
  }

  std::array<float, 3> triple(const char* key, double min, double max) const {
    const std::vector<float> v = file_.floats(key);
    check(v.size() == 3, key, " has ", v.size(), " values; expected 3, for red, green and blue");
    for (float x : v) check(x >= min && x <= max, key, " has ", x, "; expected values in ", min, "..", max);
    return {v[0], v[1], v[2]};
  }

  void check_heads(const char* part, int64_t width, int64_t heads) const {
    check(width % heads == 0 && width / heads % 8 == 0 && width / heads <= 256, "the ", part, " has ", heads,
          " heads in a width of ", width, "; expected heads of 8, 16, 24, ... or 256 values");
  }

  void check_sizes() const {
    const VisionConfig& v = c_.vision;
    const DecoderConfig& d = c_.decoder;
    check_heads("decoder", d.width, d.heads);
    check_heads("vision encoder", v.width, v.heads);
    check(projection_ == d.width, "clip.vision.projection_dim is ", projection_,
          "; expected kosmos2.embedding_length, ", d.width);
    check(v.image_size % v.patch_size == 0, "clip.vision.image_size is ", v.image_size,
          "; expected a multiple of clip.vision.patch_size, ", v.patch_size);
    check(v.patches() <= 16384, "pictures have ", v.patches(), " patches; at most 16384 are supported");
    check(d.context * d.width <= int64_t{1} << 28, "kosmos2.context_length times kosmos2.embedding_length is ",
          d.context * d.width, "; at most ", int64_t{1} << 28, " are supported");
    check(c_.latents + 4 <= d.context, "kosmos2.context_length is ", d.context, "; expected room for a picture's ",
          c_.latents, " tokens and 4 more");
    check(c_.max_new_tokens <= d.context, "kosmos2.generation.max_new_tokens is ", c_.max_new_tokens,
          "; expected at most kosmos2.context_length, ", d.context);
    check(c_.first_slot + c_.latents <= d.vocab, "kosmos2.first_slot_token_id is ", c_.first_slot,
          "; expected room for ", c_.latents, " slots within the vocabulary of ", d.vocab);
  }

  void check_vocabulary() {
    pieces_ = file_.strings("tokenizer.ggml.tokens");
    types_ = file_.ints("tokenizer.ggml.token_type");
    const std::vector<float> scores = file_.floats("tokenizer.ggml.scores");
    const uint64_t vocab = static_cast<uint64_t>(c_.decoder.vocab);
    check_count("tokenizer.ggml.tokens", pieces_.size(), vocab);
    check_count("tokenizer.ggml.token_type", types_.size(), vocab);
    check_count("tokenizer.ggml.scores", scores.size(), vocab);
    (void)file_.bytes("tokenizer.ggml.precompiled_charsmap");
    (void)file_.boolean("tokenizer.ggml.add_space_prefix");
    (void)file_.boolean("tokenizer.ggml.remove_extra_whitespaces");

    for (uint64_t i = 0; i < vocab; ++i) {
      check(!pieces_[i].empty() && pieces_[i].size() <= 1024 && is_utf8(pieces_[i]), "token ", i, " has ",
            pieces_[i].size(), " bytes; expected 1..1024 of valid UTF-8");
      const auto [at, fresh] = ids_.emplace(pieces_[i], static_cast<int32_t>(i));
      check(fresh, "token ", i, " is \"", pieces_[i], "\", as is token ", at->second);
      check(types_[i] >= 1 && types_[i] <= last_piece_type, "token ", i, " has type ", types_[i], "; expected 1..",
            static_cast<int>(last_piece_type));
      check(std::isfinite(scores[i]), "token ", i, " has score ", scores[i], "; expected a finite number");
    }
    check_special("tokenizer.ggml.bos_token_id", c_.bos, control_piece);
    check_special("tokenizer.ggml.eos_token_id", c_.eos, control_piece);
    check_special("tokenizer.ggml.padding_token_id", c_.pad, control_piece);
    check_special("tokenizer.ggml.unknown_token_id", c_.unk, unknown_piece);
    check(c_.bos != c_.eos && c_.bos != c_.pad && c_.eos != c_.pad, "begin, end and padding share a token id: ", c_.bos,
          ", ", c_.eos, ", ", c_.pad);

    c_.image_begin = tag("<image>");
    c_.image_end = tag("</image>");
    c_.phrase_begin = tag("<phrase>");
    c_.phrase_end = tag("</phrase>");
    c_.object_begin = tag("<object>");
    c_.object_end = tag("</object>");
    c_.delimiter = tag("</delimiter_of_multi_objects/>");
    c_.grounding = tag("<grounding>");
    for (int i = 0; i < c_.location_bins * c_.location_bins; ++i) {
      char name[32];
      std::snprintf(name, sizeof name, "<patch_index_%04d>", i);
      const int32_t id = tag(name);
      if (i == 0) c_.first_patch_index = id;
      check(id == c_.first_patch_index + i, name, " is token ", id, "; expected ", c_.first_patch_index + i,
            ", for patch indices follow each other");
    }
  }

  void check_count(const char* key, uint64_t found, uint64_t vocab) const {
    check(found == vocab, key, " has ", found, " elements; expected kosmos2.vocab_size, ", vocab);
  }

  void check_special(const char* key, int32_t id, PieceTypeId type) const {
    check(id < c_.decoder.vocab, key, " is ", id, "; expected less than kosmos2.vocab_size, ", c_.decoder.vocab);
    check(types_[static_cast<size_t>(id)] == type, key, " is ", id, ", a token of type ",
          types_[static_cast<size_t>(id)], "; expected type ", static_cast<int>(type));
  }

  int32_t tag(std::string_view piece) const {
    const auto found = ids_.find(piece);
    check(found != ids_.end(), "tokenizer.ggml.tokens lacks ", piece);
    const int32_t type = types_[static_cast<size_t>(found->second)];
    check(type == tag_piece, "token ", piece, " has type ", type, "; expected ", static_cast<int>(tag_piece));
    return found->second;
  }

  const GgufFile& file_;
  Kosmos2Config& c_;
  int64_t projection_ = 0;
  std::vector<std::string> pieces_;
  std::vector<int32_t> types_;
  std::map<std::string_view, int32_t> ids_;  // views into pieces_
};

}  // namespace

Kosmos2Config Kosmos2Config::read(const GgufFile& file) {
  Kosmos2Config config{};
  Reader(file, config).read();
  return config;
}

}  // namespace ke
