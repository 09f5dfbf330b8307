#include "models/kosmos2_schema.h"

#include <cmath>

#include "base/error.h"
#include "format/utf8.h"
#include "models/kosmos2_config.h"

namespace ke {

namespace {

constexpr uint64_t any = 0;
constexpr double id_max = 1 << 20, text_max = 4096;

// Whole numbers in full, others in six digits.
std::string number_text(double v) {
  return std::fabs(v) < 1e15 && v == std::floor(v) ? concat(static_cast<int64_t>(v)) : concat(v);
}

SchemaRow whole(const char* key, double min, double max, int64_t* out, const char* rule = nullptr) {
  SchemaRow row{key, MetaType::UInt32, false, true, min, max, any, nullptr, rule, std::monostate{}};
  if (out) row.out = out;
  return row;
}

SchemaRow token_id(const char* key, int32_t* out, const char* rule) {
  return {key, MetaType::UInt32, false, true, 0, id_max, any, nullptr, rule, out};
}

SchemaRow real(const char* key, double min, double max, float* out) {
  return {key, MetaType::Float32, false, true, min, max, any, nullptr, nullptr, out};
}

SchemaRow triple(const char* key, double min, double max, std::array<float, 3>* out) {
  return {key, MetaType::Float32, true, true, min, max, 3, nullptr, nullptr, out};
}

SchemaRow text(const char* key, const char* only, const char* rule = nullptr) {
  return {key, MetaType::String, false, true, 0, text_max, any, only, rule, std::monostate{}};
}

SchemaRow flag(const char* key, const char* only, const char* rule = nullptr) {
  return {key, MetaType::Bool, false, true, 0, 1, any, only, rule, std::monostate{}};
}

SchemaRow list(const char* key, MetaType type, double min, double max, const char* rule) {
  return {key, type, true, true, min, max, any, nullptr, rule, std::monostate{}};
}

SchemaRow optional(SchemaRow row) {
  row.required = false;
  return row;
}

}  // namespace

std::vector<SchemaRow> kosmos2_schema(Kosmos2Config& c, int64_t& projection) {
  DecoderConfig& d = c.decoder;
  VisionConfig& v = c.vision;
  // Lower bounds keep later sizes positive; upper bounds keep every product of two within 64 bits and every table
  // within what a machine of today holds.
  return {
      text("general.architecture", "kosmos2"),
      optional(text("general.name", nullptr)),
      optional(whole("general.alignment", 8, 65536, nullptr, "a power of two (format/gguf.h)")),
      optional(whole("general.quantization_version", 2, 2, nullptr)),
      optional(whole("general.file_type", 0, 1024, nullptr)),

      whole("kosmos2.context_length", 8, 131072, &d.context,
            "times kosmos2.embedding_length at most 2^28; room for a picture and 4 tokens"),
      whole("kosmos2.embedding_length", 8, 65536, &d.width, "a multiple of heads of 8, 16, ... 256"),
      whole("kosmos2.block_count", 1, 512, &d.layers),
      whole("kosmos2.feed_forward_length", 8, 262144, &d.ff_width),
      whole("kosmos2.attention.head_count", 1, 1024, &d.heads, "divides kosmos2.embedding_length"),
      real("kosmos2.attention.layer_norm_epsilon", 1e-12, 0.1, &d.eps),
      whole("kosmos2.vocab_size", 16, 1 << 20, &d.vocab, "the length of the tokenizer's arrays"),
      whole("kosmos2.image_token_count", 1, 4096, &c.latents, "fits the context and the vocabulary"),
      whole("kosmos2.location_bins", 2, 100, &c.location_bins, "its square: the patch indices of the vocabulary"),
      token_id("kosmos2.first_slot_token_id", &c.first_slot, "room for a picture's slots in the vocabulary"),
      whole("kosmos2.generation.max_new_tokens", 1, 131072, &c.max_new_tokens, "at most kosmos2.context_length"),
      whole("kosmos2.generation.no_repeat_ngram_size", 0, 131072, &c.no_repeat_ngram_size),
      text("kosmos2.prompt.caption", nullptr),
      text("kosmos2.prompt.caption_detailed", nullptr),
      text("kosmos2.prompt.question", nullptr, "holds {question}"),
      text("kosmos2.prompt.locate", nullptr, "holds {phrase}"),
      text("kosmos2.prompt.describe", nullptr, "holds {boxes}"),
      text("kosmos2.prompt.grounding", nullptr),
      optional(text("kosmos2.notice", nullptr)),
      optional(list("kosmos2.checksum.sha256", MetaType::String, 64, 64, "one for each tensor")),

      flag("clip.has_vision_encoder", "true"),
      text("clip.projector_type", "kosmos2"),
      flag("clip.use_gelu", "false"),  // quick gelu
      whole("clip.vision.image_size", 1, 4096, &v.image_size, "at most 16384 patches"),
      whole("clip.vision.patch_size", 1, 256, &v.patch_size, "divides clip.vision.image_size"),
      whole("clip.vision.embedding_length", 8, 65536, &v.width, "a multiple of heads of 8, 16, ... 256"),
      whole("clip.vision.feed_forward_length", 8, 262144, &v.ff_width),
      whole("clip.vision.block_count", 1, 512, &v.layers),
      whole("clip.vision.projection_dim", 8, 65536, &projection, "equals kosmos2.embedding_length"),
      whole("clip.vision.attention.head_count", 1, 1024, &v.heads, "divides clip.vision.embedding_length"),
      real("clip.vision.attention.layer_norm_epsilon", 1e-12, 0.1, &v.eps),
      triple("clip.vision.image_mean", -1, 2, &v.mean),
      triple("clip.vision.image_std", 1e-3, 1e3, &v.std),

      text("tokenizer.ggml.model", "t5"),  // llama.cpp's name of sentencepiece unigram
      list("tokenizer.ggml.tokens", MetaType::String, 1, 1024, "kosmos2.vocab_size of them, all different"),
      list("tokenizer.ggml.scores", MetaType::Float32, -1e30, 1e30, "kosmos2.vocab_size of them"),
      list("tokenizer.ggml.token_type", MetaType::Int32, 1, 5, "kosmos2.vocab_size of them"),
      token_id("tokenizer.ggml.bos_token_id", &c.bos, "a control token of its own"),
      token_id("tokenizer.ggml.eos_token_id", &c.eos, "a control token of its own"),
      token_id("tokenizer.ggml.unknown_token_id", &c.unk, "the unknown token"),
      token_id("tokenizer.ggml.padding_token_id", &c.pad, "a control token of its own"),
      optional(flag("tokenizer.ggml.add_bos_token", "true")),
      flag("tokenizer.ggml.add_space_prefix", "true"),
      flag("tokenizer.ggml.remove_extra_whitespaces", "true"),
      list("tokenizer.ggml.precompiled_charsmap", MetaType::UInt8, 0, 255,
           "at most 4 MiB; sentencepiece's compiled map"),
  };
}

namespace {

class RowReader {
 public:
  RowReader(const GgufFile& file, const SchemaRow& row) : file_(file), row_(row) {}

  void read() const {
    if (!row_.required && !file_.has(row_.key)) return;
    if (row_.array) return array();
    if (row_.type == MetaType::String) return text(file_.string(row_.key));
    if (row_.type == MetaType::Bool) {
      const std::string found = file_.boolean(row_.key) ? "true" : "false";
      check(!row_.only || found == row_.only, " is ", found, "; only ", row_.only ? row_.only : "", " is supported");
      return;
    }
    const bool is_real = row_.type == MetaType::Float32;
    const double value = is_real ? file_.f32(row_.key) : static_cast<double>(file_.u32(row_.key));
    check(inside(value), " is ", number_text(value), "; expected ", range());
    store(value);
  }

 private:
  template <class... Args>
  void check(bool ok, const Args&... what) const {
    KE_CHECK(ok, ModelCorrupt, file_.path(), ": ", row_.key, what...);
  }

  bool inside(double value) const {  // a file's 0.1 is the float32 next to it; NaN is in no range
    const bool is_real = row_.type == MetaType::Float32;
    return value >= (is_real ? static_cast<float>(row_.min) : row_.min) &&
           value <= (is_real ? static_cast<float>(row_.max) : row_.max);
  }

  std::string range() const {
    return row_.min == row_.max ? number_text(row_.min) : number_text(row_.min) + ".." + number_text(row_.max);
  }

  void text(const std::string& found) const {
    check(static_cast<double>(found.size()) <= row_.max && is_utf8(found), " has ", found.size(),
          " bytes; expected at most ", number_text(row_.max), " of valid UTF-8");
    check(!row_.only || found == row_.only, " is ", quoted(found), "; expected ", quoted(row_.only ? row_.only : ""));
  }

  // The elements of the vocabulary's arrays are checked with the vocabulary, where they have names.
  void array() const {
    switch (row_.type) {
      case MetaType::Float32:
        return reals(file_.floats(row_.key));
      case MetaType::Int32:
        (void)file_.ints(row_.key);
        return;
      case MetaType::UInt8:
        (void)file_.bytes(row_.key);
        return;
      default:
        (void)file_.strings(row_.key);
    }
  }

  void reals(const std::vector<float>& found) const {
    if (row_.count == any) return;
    check(found.size() == row_.count, " has ", found.size(), " values; expected ", row_.count,
          ", for red, green and blue");
    for (float x : found) check(inside(x), " has ", x, "; expected values in ", range());
    auto& out = *std::get<std::array<float, 3>*>(row_.out);
    for (size_t i = 0; i < out.size(); ++i) out[i] = found[i];
  }

  void store(double value) const {
    if (const auto* out = std::get_if<float*>(&row_.out)) **out = static_cast<float>(value);
    if (const auto* out = std::get_if<int32_t*>(&row_.out)) **out = static_cast<int32_t>(value);
    if (const auto* out = std::get_if<int64_t*>(&row_.out)) **out = static_cast<int64_t>(value);
  }

  const GgufFile& file_;
  const SchemaRow& row_;
};

}  // namespace

void read_by_schema(const GgufFile& file, const std::vector<SchemaRow>& schema) {
  for (const SchemaRow& row : schema) RowReader(file, row).read();
}

}  // namespace ke
