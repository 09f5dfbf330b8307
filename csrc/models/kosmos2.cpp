// KOSMOS-2: ViT -> resampler -> decoder, with location tokens. The only file that knows this model.
#include <cmath>
#include <cstdio>

#include "layers/resampler.h"
#include "layers/vit.h"
#include "models/architecture.h"
#include "models/schema_groups.h"
#include "models/workspace_pool.h"

namespace ke {
namespace {

constexpr const char* kName = "kosmos2";

struct Config {
  GeneralConfig general;
  VisionConfig vision;
  DecoderConfig decoder;
  TokenizerConfig tokenizer;
  GenerationConfig generation;
  ImageSlots slots;
  PromptFormats prompts;
  int64_t location_bins = 0;  // per axis
};

Schema schema_of(Config& c) {
  const Schema own = {
      named("location_bins", whole(concat(kName, ".location_bins"), 2, 100, &c.location_bins,
                                   "its square: the patch indices of the vocabulary")),
  };
  return general_rows(kName, c.general) + decoder_rows(kName, c.decoder) + slot_rows(kName, c.slots) + own +
         generation_rows(kName, c.generation) + prompt_rows(kName, c.prompts) +
         grounding_prompt_rows(kName, c.prompts) + vision_rows(kName, c.vision) + unigram_rows(kName, c.tokenizer);
}

Grounding read_grounding(const GgufFile& file, const VocabularyCheck& vocabulary, int64_t bins) {
  Grounding g;
  g.phrase_begin = vocabulary.tag("<phrase>");
  g.phrase_end = vocabulary.tag("</phrase>");
  g.object_begin = vocabulary.tag("<object>");
  g.object_end = vocabulary.tag("</object>");
  g.delimiter = vocabulary.tag("</delimiter_of_multi_objects/>");
  (void)vocabulary.tag("<grounding>");  // of the prompts
  g.bins = bins;
  for (int i = 0; i < bins * bins; ++i) {
    char name[32];
    std::snprintf(name, sizeof name, "<patch_index_%04d>", i);
    const int32_t id = vocabulary.tag(name);
    if (i == 0) g.first_location = id;
    check_file(file, id == g.first_location + i, name, " is token ", id, "; expected ", g.first_location + i,
               ", for patch indices follow each other");
  }
  return g;
}

// Reads and checks a file; what the table says of each key on its own, and the checks between them.
ModelInfo read(const GgufFile& file, Config& c) {
  const Schema schema = schema_of(c);
  read_by_schema(file, schema);
  check_prompts(file, kName, /*grounding=*/true);
  check_checksums(file, kName);
  check_decoder(file, kName, c.decoder);
  check_vision(file, c.vision);
  check_file(file, c.vision.projection == c.decoder.width, "clip.vision.projection_dim is ", c.vision.projection,
             "; expected ", kName, ".embedding_length, ", c.decoder.width);
  check_slots(file, kName, c.slots, c.decoder);
  check_generation(file, kName, c.generation, c.decoder);
  const VocabularyCheck vocabulary(file, kName, c.decoder.vocab);
  vocabulary.check_special_tokens(c.tokenizer);

  ModelInfo info;
  info.architecture = kName;
  info.name = c.general.name;
  info.notice = c.general.notice;
  info.preprocessing = concat("resized to ", c.vision.image_size, " x ", c.vision.image_size, ", aspect not kept");
  info.context = c.decoder.context;
  info.vocab = c.decoder.vocab;
  info.width = c.decoder.width;
  info.image_tokens = c.slots.count;
  info.max_new_tokens = c.generation.max_new_tokens;
  info.no_repeat_ngram_size = c.generation.no_repeat_ngram_size;
  info.begin = {c.tokenizer.bos};
  info.eos = c.tokenizer.eos;
  info.image = {{vocabulary.tag("<image>")}, {vocabulary.tag("</image>")}, c.slots.first, 1};
  info.grounding = read_grounding(file, vocabulary, c.location_bins);
  info.prompts = c.prompts;
  info.facts = facts_of(schema);
  return info;
}

Schema schema() {
  Config config;
  return schema_of(config);
}

ModelInfo describe(const GgufFile& file) {
  Config config;
  return read(file, config);
}

BlockShape block_shape(int64_t width, int64_t ff_width, int64_t heads, float eps) {
  BlockShape b;
  b.width = width, b.ff_width = ff_width;
  b.heads = b.kv_heads = heads, b.head_dim = width / heads;
  b.norm.eps = eps;
  return b;
}

// CLIP's tower, unlike CLIP with the last norm on all tokens.
VitShape vit_shape(const Config& c) {
  VitShape s;
  s.block = block_shape(c.vision.width, c.vision.ff_width, c.vision.heads, c.vision.eps);
  s.block.activation = Activation::QuickGelu;
  s.patches = c.vision.patches(), s.patch_values = c.vision.patch_values(), s.layers = c.vision.layers;
  s.unit_length = true;
  return s;
}

ResamplerShape resampler_shape(const Config& c) {
  return {c.vision.tokens(), c.vision.width, c.slots.count, c.decoder.width, c.decoder.heads};
}

// Magneto with sinusoids, tied embedding and output (transformers modeling_kosmos2.py Kosmos2TextTransformer; KOSMOS-2
// paper, section 3.1). Image rows are scaled like token embeddings.
DecoderShape decoder_shape(const Config& c) {
  const DecoderConfig& d = c.decoder;
  DecoderShape s;
  s.block = block_shape(d.width, d.ff_width, d.heads, d.eps);
  s.block.sub_norms = true;
  s.layers = d.layers, s.vocab = d.vocab, s.context = d.context;
  s.embedding_scale = std::sqrt(static_cast<float>(d.width));
  s.position = SinusoidPositions{.offset = 2};
  return s;
}

class Kosmos2 : public Model {
 public:
  Kosmos2(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend)
      : file_(std::move(file)),
        backend_(std::move(backend)),
        info_(read(*file_, config_)),
        weights_(file_),
        vit_(*backend_, weights_, vit_shape(config_)),
        resampler_(*backend_, weights_, resampler_shape(config_)),
        decoder_(*backend_, weights_, decoder_shape(config_)),
        vision_workspaces_(*backend_),
        decoder_workspaces_(*backend_) {
    weights_.finish();
    image_tokens = info_.image_tokens;
    width = info_.width;
    vocab = info_.vocab;
    context = info_.context;
    const Grounding& g = *info_.grounding;
    format = {info_.begin[0],  info_.eos,      info_.image.before[0], info_.image.after[0],
              info_.image.row, g.phrase_begin, g.phrase_end,          g.object_begin,
              g.object_end,    g.delimiter,    g.first_location,      g.bins};
  }

  const ModelInfo& info() const override { return info_; }

  std::vector<float> encode_image(const ImageView& image, const CancelToken* cancel) const override {
    const VisionConfig& v = config_.vision;
    const std::vector<uint8_t> square =
        resize_bicubic(image, v.image_size, v.image_size, cancel);  // squashed, aspect not kept
    const std::vector<float> patches = to_patches(square, v.image_size, v.patch_size, v.mean, v.std);
    auto lease = vision_workspaces_.lease();
    const Mat features = vit_.forward(*lease, patches.data(), cancel);
    if (cancel) cancel->check();
    const Mat tokens = resampler_.forward(*lease, features);
    std::vector<float> host(tokens.rows * tokens.cols);
    backend_->read(tokens, host.data());
    return host;
  }

  std::unique_ptr<KvCache> new_cache(int64_t capacity) const override { return decoder_.new_cache(capacity); }

  void copy_cache(const KvCache& from, KvCache& to, int64_t begin, int64_t end) const override {
    backend_->kv_copy(from, to, begin, end);
  }

  bool chooses() const override { return backend_->chooses(); }

  void choose(const std::vector<InputRow>& rows, const std::vector<int32_t>& wanted, std::span<const ChoiceRule> rules,
              std::span<Choice> choices, const CancelToken* cancel) const override {
    auto lease = decoder_workspaces_.lease();
    decoder_.choose(*lease, rows, wanted, rules, choices, cancel);
  }

  void forward(const std::vector<InputRow>& rows, const std::vector<int32_t>& wanted, float* logits,
               const CancelToken* cancel, std::span<const int32_t> outputs) const override {
    auto lease = decoder_workspaces_.lease();
    decoder_.forward(*lease, rows, wanted, logits, cancel, outputs);
  }

 private:
  std::shared_ptr<GgufFile> file_;
  std::shared_ptr<Backend> backend_;
  Config config_;
  ModelInfo info_;
  Weights weights_;
  Vit vit_;
  Resampler resampler_;
  Decoder decoder_;
  mutable WorkspacePool vision_workspaces_, decoder_workspaces_;
};

std::unique_ptr<Model> load(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend) {
  return std::make_unique<Kosmos2>(std::move(file), std::move(backend));
}

}  // namespace

extern const Architecture kosmos2;
const Architecture kosmos2 = {kName, schema, describe, load};

}  // namespace ke
