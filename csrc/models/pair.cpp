#include "models/pair.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <deque>
#include <utility>

#include "base/error.h"
#include "format/utf8.h"
#include "models/schema.h"

namespace ke {
namespace {

constexpr size_t kText = 0, kVision = 1;                   // of the joined file's files
constexpr int64_t kMostOfEach = 65536;                     // so that products stay small
constexpr uint32_t kLargeWidth = 1024, kLargeBlocks = 24;  // of CLIP's ViT-L/14
enum PieceType : int32_t { control_piece = 3, tag_piece = 4 };

// What values of the joined file point to that neither file holds.
struct Kept {
  std::deque<std::string> texts;
};

MetaValue number(MetaType type, uint64_t bits) {
  MetaValue v;
  v.type = type;
  v.scalar = bits;
  return v;
}

class Joiner {
 public:
  Joiner(const PairKind& kind, std::shared_ptr<GgufFile> text, std::shared_ptr<GgufFile> vision)
      : kind_(kind), text_(*text), vision_(*vision), kept_(std::make_shared<Kept>()) {
    join_.path = concat(text->path(), " + ", vision->path());
    join_.files = {std::move(text), std::move(vision)};
    join_.kept = kept_;
  }

  std::shared_ptr<GgufFile> run() {
    check_kinds();
    read_sizes();
    general();
    decoder();
    tower();
    prompts();
    vocabulary();
    text_tensors();
    vision_tensors();
    return GgufFile::join(std::move(join_));
  }

 private:
  // ---- checks

  void check_kinds() const {
    const std::string clip = vision_.string("general.architecture");
    check_file(vision_, clip == "clip", "general.architecture is ", quoted(clip),
               "; expected \"clip\", the vision encoder of a pair (mmproj)");
    for (const char* other : {"clip.has_text_encoder", "clip.has_audio_encoder", "clip.has_minicpmv_projector"})
      check_file(vision_, !vision_.has(other) || !vision_.boolean(other), other, " is true; only false is supported");
    if (vision_.has("clip.projector_type")) {
      const std::string type = vision_.string("clip.projector_type");
      check_file(vision_, type == "mlp", "clip.projector_type is ", quoted(type),
                 "; expected \"mlp\", of one or two matrices");
    }
    check_file(vision_, !vision_.has("clip.use_silu") || !vision_.boolean("clip.use_silu"),
               "clip.use_silu is true; only false is supported");
    const char* tiles = "several tiles of one image (version 1.6), which is not supported; expected version 1.5 or 1";
    check_file(vision_, !vision_.has("clip.vision.image_grid_pinpoints"), "clip.vision.image_grid_pinpoints: ", tiles);
    check_file(vision_, !vision_.find_tensor("model.image_newline"), "tensor model.image_newline: ", tiles);
    if (vision_.has("clip.vision.mm_patch_merge_type")) {
      const std::string merge = vision_.string("clip.vision.mm_patch_merge_type");
      check_file(vision_, merge == "flat", "clip.vision.mm_patch_merge_type is ", quoted(merge), ": ", tiles);
    }
    check_file(vision_, !vision_.find_tensor("v.patch_embd.bias"),
               "tensor v.patch_embd.bias: a tower whose patches have a bias (SigLIP); expected CLIP's");
  }

  // ---- values

  std::string own(const char* key) const { return concat(kind_.architecture, ".", key); }
  void put(std::string key, MetaValue value) { join_.metadata.emplace_back(std::move(key), value); }
  void put_u32(std::string key, uint64_t value) { put(std::move(key), number(MetaType::UInt32, value)); }
  void put_i32(std::string key, int32_t value) {
    put(std::move(key), number(MetaType::Int32, static_cast<uint32_t>(value)));
  }
  void put_f32(std::string key, float value) {
    put(std::move(key), number(MetaType::Float32, std::bit_cast<uint32_t>(value)));
  }
  void put_flag(std::string key, bool value) { put(std::move(key), number(MetaType::Bool, value)); }
  void put_text(std::string key, std::string value) {
    MetaValue v;
    v.type = MetaType::String;
    v.text = kept_->texts.emplace_back(std::move(value));
    put(std::move(key), v);
  }
  // The value of the first key that the file has, of whatever type: the model's schema checks it under the new name.
  bool take(const GgufFile& file, const std::string& key, std::string as) {
    const MetaValue* value = file.find(key);
    if (value) put(std::move(as), *value);
    return value != nullptr;
  }
  void need(const GgufFile& file, const std::string& key, std::string as) {
    check_file(file, take(file, key, std::move(as)), "key ", quoted(key), " is missing");
  }

  void read_sizes() {
    width_ = text_.u32("llama.embedding_length");
    heads_ = text_.u32("llama.attention.head_count");
    kv_heads_ = text_.has("llama.attention.head_count_kv") ? text_.u32("llama.attention.head_count_kv") : heads_;
    check_file(text_, width_ > 0 && heads_ > 0 && kv_heads_ > 0 && width_ % heads_ == 0,
               "llama.attention.head_count is ", heads_, ", llama.embedding_length ", width_,
               "; expected a number of heads that divides it");
    head_ = text_.has("llama.attention.key_length") ? text_.u32("llama.attention.key_length") : width_ / heads_;
    check_file(text_, head_ > 0 && head_ % 2 == 0 && head_ <= kMostOfEach && kv_heads_ <= kMostOfEach, "heads have ",
               head_, " values, there are ", kv_heads_, " KV heads; expected an even number, and at most ", kMostOfEach,
               " of each");
    for (const char* key : {"llama.rope.dimension_count", "llama.attention.value_length"})
      if (text_.has(key))
        check_file(text_, text_.u32(key) == head_, key, " is ", text_.u32(key), "; only that of whole heads, ", head_,
                   ", is supported");
    two_layers_ = vision_.find_tensor("mm.2.weight") != nullptr;
    const Tensor* last = vision_.find_tensor(two_layers_ ? "mm.2.weight" : "mm.0.weight");
    check_file(vision_, last && last->shape.size() == 2,
               "tensor mm.0.weight is missing; expected a projector's matrix");
    check_file(vision_, last->shape[0] == width_, "the projector makes rows of ", last->shape[0],
               " values; expected llama.embedding_length of ", text_.path(), ", ", width_);
  }

  void general() {
    put_text("general.architecture", kind_.architecture);
    take(text_, "general.name", "general.name");
  }

  void decoder() {
    for (const char* key : {"context_length", "embedding_length", "block_count", "feed_forward_length",
                            "attention.head_count", "attention.layer_norm_rms_epsilon"})
      need(text_, concat("llama.", key), own(key));
    put_u32(own("attention.head_count_kv"), static_cast<uint64_t>(kv_heads_));
    put_u32(own("attention.key_length"), static_cast<uint64_t>(head_));
    if (!take(text_, "llama.rope.freq_base", own("rope.freq_base"))) put_f32(own("rope.freq_base"), 10000);
    const bool typed = text_.has("llama.rope.scaling.type");
    const std::string scaling = typed ? text_.string("llama.rope.scaling.type") : "none";
    if (scaling != "none") {
      take(text_, "llama.rope.scaling.type", own("rope.scaling.type"));
      need(text_, "llama.rope.scaling.factor", own("rope.scaling.factor"));
    } else if (text_.has("llama.rope.scale_linear")) {  // before there were types
      put_text(own("rope.scaling.type"), "linear");
      take(text_, "llama.rope.scale_linear", own("rope.scaling.factor"));
    }
    tokens_ = text_.strings("tokenizer.ggml.tokens");
    put_u32(own("vocab_size"), tokens_.size());
  }

  void tower() {
    for (const char* key :
         {"clip.has_vision_encoder", "clip.use_gelu", "clip.vision.image_size", "clip.vision.patch_size",
          "clip.vision.embedding_length", "clip.vision.feed_forward_length", "clip.vision.attention.head_count",
          "clip.vision.attention.layer_norm_epsilon", "clip.vision.image_mean", "clip.vision.image_std"})
      need(vision_, key, key);
    put_text("clip.projector_type", kind_.architecture);
    // The file's own is that of CLIP's projection to texts, which no LLaVA has.
    put_u32("clip.vision.projection_dim", static_cast<uint64_t>(width_));
    blocks_ = blocks_that_run();
    // As LLaVA's towers are trained: one block more, whose output nobody looks at.
    put_u32("clip.vision.block_count", uint64_t{blocks_} + 1);
    put_i32(own("vision.feature_layer"), -2);
    put_text(own("projector"), two_layers_ ? "mlp2x_gelu" : "linear");
    std::string aspect = two_layers_ ? kind_.mlp_aspect : kind_.linear_aspect;
    if (vision_.has("clip.vision.image_aspect_ratio")) {
      const std::string ratio = vision_.string("clip.vision.image_aspect_ratio");
      check_file(vision_, ratio == "pad" || ratio == "square", "clip.vision.image_aspect_ratio is ", quoted(ratio),
                 "; expected \"pad\" or \"square\"");
      aspect = ratio == "pad" ? "pad" : "crop";
    }
    put_text(own("image.aspect"), aspect);
  }

  // The converter leaves out the block that nobody looks at and counts without it, or it names the block. A tower that
  // is whole all the same has ViT-L/14's 24, of which LLaVA looks at the last but one.
  uint32_t blocks_that_run() const {
    const uint32_t counted = vision_.u32("clip.vision.block_count");
    check_file(vision_, counted >= 1 && counted <= 512, "clip.vision.block_count is ", counted, "; expected 1..512");
    const char* key = "clip.vision.feature_layer";
    if (!vision_.has(key)) {
      const bool whole = counted == kLargeBlocks && vision_.u32("clip.vision.embedding_length") == kLargeWidth;
      return whole ? counted - 1 : counted;
    }
    const MetaValue& layers = *vision_.find(key);
    check_file(vision_, layers.type == MetaType::Array && layers.count == 1, key,
               " names several layers, or none; only one is supported");
    uint32_t layer = 0;
    const bool number = layers.element_type == MetaType::Int32 || layers.element_type == MetaType::UInt32;
    if (number) std::memcpy(&layer, layers.data, sizeof layer);
    check_file(vision_, number && layer >= 1 && layer <= counted, key, " is not a number in 1..", counted,
               "; expected one, clip.vision.block_count at most");
    return layer;
  }

  void prompts() {
    const PromptFormats& p = two_layers_ ? kind_.mlp : kind_.linear;
    put_text(own("prompt.system"), p.system);
    put_text(own("prompt.caption"), p.caption);
    put_text(own("prompt.caption_detailed"), p.caption_detailed);
    put_text(own("prompt.question"), p.question);
    const auto half = static_cast<int64_t>(text_.u32("llama.context_length") / 2);  // leaves room for the prompt
    put_u32(own("generation.max_new_tokens"), static_cast<uint64_t>(std::min(kind_.max_new_tokens, half)));
    put_u32(own("generation.no_repeat_ngram_size"), 0);
  }

  // ---- tokens

  void vocabulary() {
    for (const char* key :
         {"tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"})
      need(text_, key, key);
    const std::vector<int32_t> types = text_.ints("tokenizer.ggml.token_type");
    const auto token = [&](const char* key, uint32_t otherwise) {
      const uint32_t id = text_.has(key) ? text_.u32(key) : otherwise;
      put_u32(key, id);
      return id;
    };
    const uint32_t bos = token("tokenizer.ggml.bos_token_id", 1), eos = token("tokenizer.ggml.eos_token_id", 2);
    const uint32_t unknown = token("tokenizer.ggml.unknown_token_id", 0);
    const char* padding = "tokenizer.ggml.padding_token_id";  // often the end or the unknown token: then there is none
    const uint32_t pad = text_.has(padding) ? text_.u32(padding) : unknown;
    if (pad < types.size() && types[pad] == control_piece && pad != bos && pad != eos) put_u32(padding, pad);
    take(text_, "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_bos_token");
    const std::pair<const char*, bool> flags[] = {{"tokenizer.ggml.add_space_prefix", true},
                                                  {"tokenizer.ggml.remove_extra_whitespaces", false}};
    for (const auto& [key, otherwise] : flags)
      if (!take(text_, key, key)) put_flag(key, otherwise);
    const auto found = std::find(tokens_.begin(), tokens_.end(), kind_.placeholder);
    const auto at = static_cast<size_t>(found - tokens_.begin());
    const bool added = at < types.size() && (types[at] == control_piece || types[at] == tag_piece);
    put_u32(own("image.token_id"), added ? at : unknown);
  }

  // ---- tensors

  void add(size_t file, const Tensor& stored, Tensor shown, std::vector<int64_t> rows = {}) {
    join_.tensors.push_back({std::move(shown), file, &stored, std::move(rows)});
  }

  void text_tensors() {
    for (const Tensor& t : text_.tensors()) {
      check_file(text_, t.name != "rope_freqs.weight",
                 "tensor rope_freqs.weight scales rotary positions one by one, which is not supported; expected none");
      if (t.name == "token_embd.weight" || t.name == "output.weight") {
        add(kText, t, with_rows(t, t.name));
        continue;
      }
      const bool q = t.name.starts_with("blk.") && t.name.ends_with(".attn_q.weight");
      const bool k = t.name.starts_with("blk.") && t.name.ends_with(".attn_k.weight");
      add(kText, t, t, q || k ? row_order(t, q ? heads_ : kv_heads_) : std::vector<int64_t>());
    }
    const Tensor* embedding = text_.find_tensor("token_embd.weight");
    check_file(text_, embedding, "tensor token_embd.weight is missing");
    if (!text_.find_tensor("output.weight")) add(kText, *embedding, with_rows(*embedding, "output.weight"));  // tied
  }

  // Without the rows that only pad the vocabulary.
  Tensor with_rows(const Tensor& t, std::string name) const {
    const auto tokens = static_cast<int64_t>(tokens_.size());
    check_file(text_, t.shape.size() == 2 && tokens >= 1 && t.shape[0] >= tokens, "tensor ", t.name, " has ", t.rows(),
               " rows; expected one for each of the ", tokens, " tokens");
    Tensor shown = t;
    shown.name = std::move(name);
    shown.bytes = t.bytes / static_cast<size_t>(t.shape[0]) * static_cast<size_t>(tokens);
    shown.shape[0] = tokens;
    return shown;
  }

  // llama.cpp turns neighbouring rows of a head together, we its halves: row i of half h is its row 2 i + h.
  std::vector<int64_t> row_order(const Tensor& t, int64_t heads) const {
    check_file(text_, t.shape.size() == 2 && t.shape[0] == heads * head_, "tensor ", t.name, " has ", t.rows(),
               " rows; expected ", heads, " heads of ", head_);
    std::vector<int64_t> rows;
    rows.reserve(static_cast<size_t>(t.shape[0]));
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t half = 0; half < 2; ++half)
        for (int64_t i = 0; i < head_ / 2; ++i) rows.push_back(head * head_ + 2 * i + half);
    return rows;
  }

  void vision_tensors() {
    const auto width = static_cast<int64_t>(vision_.u32("clip.vision.embedding_length"));
    for (const Tensor& t : vision_.tensors()) {
      if (t.name.starts_with("v.post_ln.") || behind_features(t.name)) continue;  // nobody looks at them
      Tensor shown = t;
      shown.name = feed_forward_name(t.name, width);
      add(kVision, t, std::move(shown));
    }
  }

  bool behind_features(std::string_view name) const {
    constexpr std::string_view blocks = "v.blk.";
    if (!name.starts_with(blocks)) return false;
    uint64_t block = 0;
    for (const char c : name.substr(blocks.size())) {
      if (c == '.') return block >= blocks_;
      if (c < '0' || c > '9' || block > 65536) return false;
      block = block * 10 + static_cast<uint64_t>(c - '0');
    }
    return false;
  }

  // llama.cpp's old converter gave the two products of the feed-forward each other's name. The first is the one whose
  // rows are as long as the tower is wide.
  std::string feed_forward_name(const std::string& name, int64_t width) const {
    const size_t at = name.find(".ffn_");
    if (!name.starts_with("v.blk.") || at == std::string::npos) return name;
    const std::string block = name.substr(0, at), kind = name.substr(name.rfind('.'));
    const Tensor* up = vision_.find_tensor(block + ".ffn_up.weight");
    const Tensor* down = vision_.find_tensor(block + ".ffn_down.weight");
    if (!up || !down || up->cols() == width || down->cols() != width) return name;
    if (name == block + ".ffn_up" + kind) return block + ".ffn_down" + kind;
    return name == block + ".ffn_down" + kind ? block + ".ffn_up" + kind : name;
  }

  const PairKind& kind_;
  const GgufFile &text_, &vision_;
  std::shared_ptr<Kept> kept_;
  GgufJoin join_;
  std::vector<std::string> tokens_;
  int64_t width_ = 0, heads_ = 0, kv_heads_ = 0, head_ = 0;
  uint32_t blocks_ = 0;  // of the tower, that run
  bool two_layers_ = false;
};

}  // namespace

std::shared_ptr<GgufFile> join_pair(const PairKind& kind, std::shared_ptr<GgufFile> text,
                                    std::shared_ptr<GgufFile> vision) {
  return Joiner(kind, std::move(text), std::move(vision)).run();
}

}  // namespace ke
