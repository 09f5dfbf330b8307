#include "gguf_draft.h"

#include <array>
#include <cstring>

#include "quant/codec.h"

namespace fuzz {

void put(Bytes& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i, value >>= 8) out.push_back(static_cast<uint8_t>(value));
}

Bytes whole(uint64_t value, int bytes) {
  Bytes out;
  put(out, value, bytes);
  return out;
}

Bytes real(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return whole(bits, 4);
}

Bytes string(const std::string& text) {
  Bytes out = whole(text.size(), 8);
  out.insert(out.end(), text.begin(), text.end());
  return out;
}

Entry entry(std::string key, uint32_t type, Bytes value) {
  const uint64_t length = key.size();
  return {std::move(key), length, type, std::move(value)};
}

void Draft::place() {
  uint64_t at = 0;
  for (TensorDraft& t : tensors) {
    t.offset = at;
    at = (at + t.data.size() + alignment - 1) / alignment * alignment;
  }
}

Bytes Draft::bytes() const {
  Bytes out(magic.begin(), magic.end());
  put(out, version, 4);
  put(out, tensors.size() + static_cast<uint64_t>(extra_tensors), 8);
  put(out, entries.size() + static_cast<uint64_t>(extra_entries), 8);
  for (const Entry& e : entries) {
    put(out, e.key_length, 8);
    out.insert(out.end(), e.key.begin(), e.key.end());
    put(out, e.type, 4);
    out.insert(out.end(), e.value.begin(), e.value.end());
  }
  for (const TensorDraft& t : tensors) {
    put(out, t.name_length, 8);
    out.insert(out.end(), t.name.begin(), t.name.end());
    put(out, t.rank, 4);
    for (uint64_t d : t.dims) put(out, d, 8);
    put(out, t.type, 4);
    put(out, t.offset, 8);
  }
  for (const TensorDraft& t : tensors) {
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    out.insert(out.end(), t.data.begin(), t.data.end());
  }
  return out;
}

Entry* Draft::find(const std::string& key) {
  for (Entry& e : entries)
    if (e.key == key) return &e;
  return nullptr;
}

Sizes random_sizes(Random& random) {
  Sizes s;
  const auto heads_of = [&](uint32_t width) {
    uint32_t heads = 1;
    while (width / heads > 256 || (width / (2 * heads) >= 8 && random.chance(2))) heads *= 2;
    return heads;
  };
  s.layers = 1 + random.chance(3);
  s.width = random.pick<uint32_t>({8, 16, 16, 24, 32, 64, 256});
  s.ff = random.pick<uint32_t>({8, 16, 17, 32, 40, 256});
  s.heads = s.width == 24 ? random.pick<uint32_t>({1, 3}) : heads_of(s.width);
  s.latents = random.pick<uint32_t>({1, 2, 4, 7});
  s.context = s.latents + random.pick<uint32_t>({4, 8, 64, 1000});
  s.context = s.context < 8 ? 8 : s.context;
  s.bins = random.pick<uint32_t>({2, 2, 3, 5});
  s.vision_layers = 1 + random.chance(3);
  s.vision_width = random.pick<uint32_t>({8, 16, 32, 256});
  s.vision_ff = random.pick<uint32_t>({8, 16, 33, 256});
  s.vision_heads = heads_of(s.vision_width);
  s.patch = random.pick<uint32_t>({1, 2, 3, 14});
  s.image = s.patch * random.pick<uint32_t>({1, 2, 3, 5});
  return s;
}

namespace {

const char* const kTags[] = {"</doc>",     "<image>",   "</image>", "</chunk>",  "</line>",
                             "<phrase>",   "</phrase>", "<object>", "</object>", "</delimiter_of_multi_objects/>",
                             "<grounding>"};

class Builder {
 public:
  Builder(Random& random, const Sizes& sizes, uint32_t weight_type) : random_(random), s_(sizes), type_(weight_type) {}

  Draft build() {
    vocabulary();
    settings();
    weights();
    draft_.place();
    return std::move(draft_);
  }

 private:
  void number(const char* key, uint32_t value) { draft_.entries.push_back(entry(key, kU32, whole(value, 4))); }
  void text(const char* key, const char* value) { draft_.entries.push_back(entry(key, kString, string(value))); }
  void flag(const char* key, bool value) { draft_.entries.push_back(entry(key, kBool, whole(value, 1))); }
  void array(const char* key, uint32_t type, uint64_t count, const Bytes& elements) {
    Bytes value = whole(type, 4);
    put(value, count, 8);
    value.insert(value.end(), elements.begin(), elements.end());
    draft_.entries.push_back(entry(key, kArray, std::move(value)));
  }

  void piece(const std::string& text, float score, int32_t type) {
    const Bytes t = string(text), s = real(score), k = whole(static_cast<uint32_t>(type), 4);
    pieces_.insert(pieces_.end(), t.begin(), t.end());
    scores_.insert(scores_.end(), s.begin(), s.end());
    types_.insert(types_.end(), k.begin(), k.end());
    ++vocab_;
  }

  void vocabulary() {
    for (const char* p : {"<s>", "<pad>", "</s>"}) piece(p, 0, 3);
    piece("<unk>", 0, 2);
    float score = -3;
    for (const char* p : {".",
                          "\xE2\x96\x81"
                          "a",
                          "\xE2\x96\x81"
                          "An",
                          "\xE2\x96\x81"
                          "image",
                          "\xE2\x96\x81of", "\xE2\x96\x81", "s", "n", "e", "\xC3\xA9", "\xE4\xB8\xAD"})
      piece(p, score -= 0.25f, 1);
    piece("<mask>", 0, 5);
    for (const char* p : kTags) piece(p, 0, 4);
    for (uint32_t i = 0; i < s_.bins * s_.bins; ++i) {
      char name[32];
      std::snprintf(name, sizeof name, "<patch_index_%04u>", i);
      piece(name, 0, 4);
    }
  }

  void settings() {
    text("general.architecture", "kosmos2");
    text("general.name", "small");
    number("general.alignment", 64);
    number("general.quantization_version", 2);
    number("kosmos2.context_length", s_.context);
    number("kosmos2.embedding_length", s_.width);
    number("kosmos2.block_count", s_.layers);
    number("kosmos2.feed_forward_length", s_.ff);
    number("kosmos2.attention.head_count", s_.heads);
    draft_.entries.push_back(entry("kosmos2.attention.layer_norm_epsilon", kF32, real(1e-5f)));
    number("kosmos2.vocab_size", vocab_);
    number("kosmos2.image_token_count", s_.latents);
    number("kosmos2.location_bins", s_.bins);
    number("kosmos2.first_slot_token_id", 4);
    number("kosmos2.generation.max_new_tokens", 4);
    number("kosmos2.generation.no_repeat_ngram_size", 3);
    text("kosmos2.prompt.caption", "An image of");
    text("kosmos2.prompt.caption_detailed", "An image:");
    text("kosmos2.prompt.question", "Q {question} A");
    text("kosmos2.prompt.locate", "<phrase> {phrase}</phrase>");
    text("kosmos2.prompt.describe", "<phrase> It</phrase>{boxes} is");
    text("kosmos2.prompt.grounding", "<grounding>");
    flag("clip.has_vision_encoder", true);
    text("clip.projector_type", "kosmos2");
    flag("clip.use_gelu", false);
    number("clip.vision.image_size", s_.image);
    number("clip.vision.patch_size", s_.patch);
    number("clip.vision.embedding_length", s_.vision_width);
    number("clip.vision.feed_forward_length", s_.vision_ff);
    number("clip.vision.block_count", s_.vision_layers);
    number("clip.vision.projection_dim", s_.width);
    number("clip.vision.attention.head_count", s_.vision_heads);
    draft_.entries.push_back(entry("clip.vision.attention.layer_norm_epsilon", kF32, real(1e-5f)));
    Bytes half = real(0.5f), three = half;
    for (int i = 0; i < 2; ++i) three.insert(three.end(), half.begin(), half.end());
    array("clip.vision.image_mean", kF32, 3, three);
    array("clip.vision.image_std", kF32, 3, three);
    text("tokenizer.ggml.model", "t5");
    array("tokenizer.ggml.tokens", kString, vocab_, pieces_);
    array("tokenizer.ggml.scores", kF32, vocab_, scores_);
    array("tokenizer.ggml.token_type", kI32, vocab_, types_);
    number("tokenizer.ggml.bos_token_id", 0);
    number("tokenizer.ggml.padding_token_id", 1);
    number("tokenizer.ggml.eos_token_id", 2);
    number("tokenizer.ggml.unknown_token_id", 3);
    flag("tokenizer.ggml.add_space_prefix", true);
    flag("tokenizer.ggml.remove_extra_whitespaces", true);
    array("tokenizer.ggml.precompiled_charsmap", kU8, 0, {});
  }

  // shape: outermost first; plain tensors (norms, biases, embeddings) stay F32.
  void tensor(const std::string& name, std::vector<uint64_t> shape, bool plain) {
    uint64_t count = 1;
    for (uint64_t d : shape) count *= d;
    const ke::DTypeInfo* row = ke::find_dtype(plain ? 0u : type_);
    if (shape.back() % row->block_elems) row = ke::find_dtype(1u);  // rows that hold no whole blocks: F16
    std::vector<float> values(count);
    for (float& v : values)
      v = static_cast<float>(static_cast<int64_t>(random_.below(2001)) - 1000) * (plain ? 1e-3f : 3e-4f) +
          (name.ends_with("norm.weight") || name.ends_with("ln.weight") ? 1.0f : 0.0f);
    Bytes data(count / row->block_elems * row->block_bytes);
    ke::encode(row->dtype, values.data(), data.data(), static_cast<int64_t>(count), static_cast<int64_t>(shape.back()));
    const std::vector<uint64_t> dims(shape.rbegin(), shape.rend());
    draft_.tensors.push_back({name, name.size(), static_cast<uint32_t>(dims.size()), dims,
                              static_cast<uint32_t>(row->dtype), 0, std::move(data)});
  }
  void linear(const std::string& name, uint64_t out, uint64_t in) {
    tensor(name + ".weight", {out, in}, false);
    tensor(name + ".bias", {out}, true);
  }
  void norm(const std::string& name, uint64_t n) {
    tensor(name + ".weight", {n}, true);
    tensor(name + ".bias", {n}, true);
  }

  void weights() {
    tensor("token_embd.weight", {vocab_, s_.width}, false);
    for (uint32_t i = 0; i < s_.layers; ++i) {
      const std::string b = "blk." + std::to_string(i) + ".";
      norm(b + "attn_norm", s_.width);
      for (const char* x : {"attn_q", "attn_k", "attn_v"}) linear(b + x, s_.width, s_.width);
      norm(b + "attn_sub_norm", s_.width);
      linear(b + "attn_output", s_.width, s_.width);
      norm(b + "ffn_norm", s_.width);
      linear(b + "ffn_up", s_.ff, s_.width);
      norm(b + "ffn_sub_norm", s_.ff);
      linear(b + "ffn_down", s_.width, s_.ff);
    }
    norm("output_norm", s_.width);
    const uint64_t grid = s_.image / s_.patch;
    tensor("v.class_embd", {s_.vision_width}, true);
    tensor("v.patch_embd.weight", {s_.vision_width, 3, s_.patch, s_.patch}, true);
    tensor("v.position_embd.weight", {grid * grid + 1, s_.vision_width}, true);
    norm("v.pre_ln", s_.vision_width);
    for (uint32_t i = 0; i < s_.vision_layers; ++i) {
      const std::string b = "v.blk." + std::to_string(i) + ".";
      norm(b + "ln1", s_.vision_width);
      for (const char* x : {"attn_q", "attn_k", "attn_v", "attn_out"}) linear(b + x, s_.vision_width, s_.vision_width);
      norm(b + "ln2", s_.vision_width);
      linear(b + "ffn_up", s_.vision_ff, s_.vision_width);
      linear(b + "ffn_down", s_.vision_width, s_.vision_ff);
    }
    norm("v.post_ln", s_.vision_width);
    tensor("mm.latent_query", {s_.latents, s_.width}, true);
    linear("mm.dense", s_.width, s_.vision_width);
    for (const char* x : {"mm.attn_q", "mm.attn_k", "mm.attn_v", "mm.attn_out"}) linear(x, s_.width, s_.width);
  }

  Random& random_;
  Sizes s_;
  uint32_t type_;
  Draft draft_;
  Bytes pieces_, scores_, types_;
  uint32_t vocab_ = 0;
};

}  // namespace

Draft valid_model(Random& random, const Sizes& sizes, uint32_t weight_type) {
  return Builder(random, sizes, weight_type).build();
}

}  // namespace fuzz
