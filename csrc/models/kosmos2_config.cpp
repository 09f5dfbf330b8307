// The checks between the values of a KOSMOS-2 file; what holds of each on its own is in kosmos2_schema.cpp.
#include "models/kosmos2_config.h"

#include <cmath>
#include <cstdio>
#include <map>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "format/utf8.h"
#include "models/kosmos2_schema.h"

namespace ke {

namespace {

enum PieceTypeId : int32_t { unknown_piece = 2, control_piece = 3, tag_piece = 4, last_piece_type = 5 };

class Reader {
 public:
  Reader(const GgufFile& file, Kosmos2Config& config) : file_(file), c_(config) {}

  void read() {
    read_by_schema(file_, kosmos2_schema(c_, projection_));
    check_prompts();
    check_checksums();
    check_sizes();
    check_vocabulary();
  }

 private:
  template <class... Args>
  void check(bool ok, const Args&... what) const {
    KE_CHECK(ok, ModelCorrupt, file_.path(), ": ", what...);
  }

  // A format without its place would drop what the user asks.
  void check_prompts() const {
    for (const auto& [name, place] :
         {std::pair("question", "{question}"), {"locate", "{phrase}"}, {"describe", "{boxes}"}}) {
      const std::string key = concat("kosmos2.prompt.", name), format = file_.string(key);
      check(format.find(place) != std::string::npos, key, " is ", quoted(format), "; expected ", place, " in it");
    }
  }

  void check_checksums() const {
    constexpr const char* key = "kosmos2.checksum.sha256";
    if (!file_.has(key)) return;
    const std::vector<std::string> sums = file_.strings(key);
    check_count(key, sums.size(), file_.tensors().size(), "one for each tensor");
    for (size_t i = 0; i < sums.size(); ++i)
      check(sums[i].size() == 64 && sums[i].find_first_not_of("0123456789abcdef") == std::string::npos, key, "[", i,
            "] is ", quoted(sums[i]), "; expected 64 hexadecimal digits");
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
    check_count("tokenizer.ggml.tokens", pieces_.size(), vocab, "kosmos2.vocab_size");
    check_count("tokenizer.ggml.token_type", types_.size(), vocab, "kosmos2.vocab_size");
    check_count("tokenizer.ggml.scores", scores.size(), vocab, "kosmos2.vocab_size");

    for (uint64_t i = 0; i < vocab; ++i) {
      check(!pieces_[i].empty() && pieces_[i].size() <= 1024 && is_utf8(pieces_[i]), "tokenizer.ggml.tokens: token ", i,
            " has ", pieces_[i].size(), " bytes; expected 1..1024 of valid UTF-8");
      const auto [at, fresh] = ids_.emplace(pieces_[i], static_cast<int32_t>(i));
      check(fresh, "tokenizer.ggml.tokens: token ", i, " is ", quoted(pieces_[i]), ", as is token ", at->second,
            "; expected all different");
      check(types_[i] >= 1 && types_[i] <= last_piece_type, "tokenizer.ggml.token_type: token ", i, " has type ",
            types_[i], "; expected 1..", static_cast<int>(last_piece_type));
      check(std::fabs(scores[i]) <= 1e30f, "tokenizer.ggml.scores: token ", i, " has score ", scores[i],
            "; expected a finite number of at most 1e30");
    }
    check_special("tokenizer.ggml.bos_token_id", c_.bos, control_piece);
    check_special("tokenizer.ggml.eos_token_id", c_.eos, control_piece);
    check_special("tokenizer.ggml.padding_token_id", c_.pad, control_piece);
    check_special("tokenizer.ggml.unknown_token_id", c_.unk, unknown_piece);
    check(c_.bos != c_.eos && c_.bos != c_.pad && c_.eos != c_.pad,
          "tokenizer.ggml.{bos,eos,padding}_token_id: begin, end and padding share a token id: ", c_.bos, ", ", c_.eos,
          ", ", c_.pad, "; expected three");

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

  void check_count(const char* key, uint64_t found, uint64_t expected, const char* what) const {
    check(found == expected, key, " has ", found, " elements; expected ", what, ", ", expected);
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
