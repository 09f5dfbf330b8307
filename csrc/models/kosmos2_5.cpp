// KOSMOS-2.5: an encoder of patches of a grid -> resampler, in which the padding has its weight -> Magneto without the
// attention's sub-norm, with a segment for images. The only file that knows this model.
#include <algorithm>

#include "format/utf8.h"
#include "layers/grid_vit.h"
#include "layers/resampler.h"
#include "models/answer_parser.h"
#include "models/kosmos.h"
#include "models/vision_language.h"

namespace ke {
namespace {

struct PageConfig {
  int64_t patch_size = 0, max_patches = 0;  // pixels; of one image
  int64_t width = 0, ff_width = 0, layers = 0, heads = 0;
  int64_t projection = 0;
  float eps = 0;
};

struct Kosmos2_5Config : LanguageConfig {
  PageConfig page;
  ImagePlaceholders placeholders{.step = 0};
};

// Patches on the host.
struct PageImage : PreparedImage {
  using PreparedImage::PreparedImage;
  PatchGridSize grid;
  std::vector<float> patches;  // (rows * cols, 3 * patch * patch)
};

class PageEncoder : public ImageEncoder {
 public:
  PageEncoder(Backend& backend, Weights& weights, int64_t patch, const GridVitShape& vision,
              const ResamplerShape& resampler)
      : patch_(patch),
        max_patches_(vision.max_patches),
        vit_(backend, weights, vision),
        resampler_(backend, weights, resampler) {}

  std::unique_ptr<const PreparedImage> prepare(const Model& model, const ImageView& image,
                                               const CancelToken* cancel) const override {
    auto page = std::make_unique<PageImage>(model, image);
    page->grid = patch_grid_size(image.width, image.height, patch_, max_patches_);
    // A side of all patches has a number that the published tables lack.
    KE_CHECK(std::max(page->grid.rows, page->grid.cols) < max_patches_, InvalidRequest, "a picture of ", image.width,
             " x ", image.height, " pixels is too long: its longer side may be at most ", max_patches_ - 1,
             " patches, and it has ", std::max(page->grid.rows, page->grid.cols));
    page->patches = to_patch_grid(image, patch_, page->grid, cancel);
    return page;
  }

  Mat encode(Workspace& ws, const PreparedImage& image, const CancelToken* cancel) const override {
    const auto& page = static_cast<const PageImage&>(image);
    const auto [rows, cols] = page.grid;
    const Mat features = vit_.forward(ws, page.patches.data(), rows, cols, cancel);
    if (cancel) cancel->check();
    return resampler_.forward_weighted(ws, features, std::max<int64_t>(1, vit_.padding(rows, cols)), cancel);
  }

  int64_t rows() const override { return resampler_.rows(0); }

 private:
  const int64_t patch_, max_patches_;
  const GridVit vit_;
  const Resampler resampler_;
};

struct Kosmos2_5 {
  static constexpr const char* kName = "kosmos2_5";
  using Config = Kosmos2_5Config;

  static Schema rows(Config& c) {
    PageConfig& v = c.page;
    const Schema vision = {
        fixed_flag("clip.has_vision_encoder", true),
        fixed_text("clip.projector_type", kName),
        named("vision.patch_size", whole("clip.vision.patch_size", 1, 256, &v.patch_size)),
        named("vision.max_patches", whole(concat(kName, ".vision.max_patches"), 2, 16384, &v.max_patches)),
        named("vision.width",
              whole("clip.vision.embedding_length", 8, 65536, &v.width, "a multiple of heads of 8, 16, ... 256")),
        named("vision.ff_width", whole("clip.vision.feed_forward_length", 8, 262144, &v.ff_width)),
        named("vision.layers", whole("clip.vision.block_count", 1, 512, &v.layers)),
        whole("clip.vision.projection_dim", 8, 65536, &v.projection, concat("equals ", kName, ".embedding_length")),
        named("vision.heads",
              whole("clip.vision.attention.head_count", 1, 1024, &v.heads, "divides clip.vision.embedding_length")),
        named("vision.eps", real("clip.vision.attention.layer_norm_epsilon", 1e-12, 0.1, &v.eps)),
    };
    const Schema prompts = {
        text(concat(kName, ".prompt.read"), &c.prompts.read),
        optional(text(concat(kName, ".prompt.markdown"), &c.prompts.markdown)),
        optional(text(concat(kName, ".prompt.question"), &c.prompts.question, "holds {question}")),
    };
    Schema vocabulary = byte_bpe_rows(kName, c.tokenizer);
    for (SchemaRow& row : vocabulary)  // every prompt begins with it
      if (row.key == "tokenizer.ggml.bos_token_id") row.required = true;
    return general_rows(kName, c.general) + decoder_rows(kName, c.decoder) + placeholder_rows(kName, c.placeholders) +
           generation_rows(kName, c.generation) + prompts + vision + vocabulary;
  }

  // Of a chat model, the only kind that takes questions.
  static void check_question(const GgufFile& file, const std::string& format) {
    const std::string key = concat(kName, ".prompt.question"), image = "{image}";
    if (!file.has(key)) return;
    check_file(file, format.find("{question}") != std::string::npos && format.find(image) == format.rfind(image), key,
               " is ", quoted(format), "; expected {question} and at most one {image} in it");
  }

  static ModelInfo info(const GgufFile& file, const Config& c) {
    const PageConfig& v = c.page;
    check_heads(file, "vision encoder", v.width, v.heads);
    check_file(file, v.projection == c.decoder.width, "clip.vision.projection_dim is ", v.projection, "; expected ",
               kName, ".embedding_length, ", c.decoder.width);
    check_placeholders(file, kName, c.placeholders, c.decoder);
    check_question(file, c.prompts.question);
    ModelInfo info = language_info(file, kName, c);
    const VocabularyCheck vocabulary(file, kName, c.decoder.vocab);
    vocabulary.check_special_tokens(c.tokenizer);
    info.image_tokens = c.placeholders.count;
    // All rows have one id, as transformers has it; unilm's grow, which only an n-gram rule would notice.
    vocabulary.check_placeholder(concat(kName, ".first_slot_token_id"), c.placeholders.first);
    info.image = {{vocabulary.tag("<image>")},
                  {vocabulary.tag("</image>")},
                  c.placeholders.first,
                  c.placeholders.step,
                  /*segment=*/1};
    info.prompts.chat = !c.prompts.question.empty();
    info.never = vocabulary.unused();
    if (c.tokenizer.bos >= 0) info.begin = {c.tokenizer.bos};  // the processor's, whatever add_bos_token says
    info.answers = page_answers(v.patch_size, v.max_patches);
    info.page_lines = true;
    info.preprocessing = concat("whitened, resized to at most ", v.max_patches, " patches of ", v.patch_size, " x ",
                                v.patch_size, ", aspect kept");
    return info;
  }

  static VisionLanguageParts parts(const Config& c) {
    const PageConfig& v = c.page;
    GridVitShape vision;
    vision.block.width = v.width, vision.block.ff_width = v.ff_width;
    vision.block.heads = vision.block.kv_heads = v.heads, vision.block.head_dim = v.width / v.heads;
    vision.block.norm = {NormKind::Rms, v.eps, /*bias=*/false};
    vision.block.bias = false, vision.block.gated = true;
    vision.block.activation = Activation::GeluTanh;
    vision.layers = v.layers, vision.patch_values = 3 * v.patch_size * v.patch_size;
    vision.max_patches = vision.table_rows = v.max_patches;
    const ResamplerShape resampler = {v.max_patches,   v.width,         c.placeholders.count,
                                      c.decoder.width, c.decoder.heads, /*weighted=*/true};
    DecoderShape decoder = magneto(c.decoder);
    decoder.block.attn_sub_norm = false;
    decoder.segments = 2;
    return {[patch = v.patch_size, vision, resampler](Backend& backend, Weights& weights) {
              return std::make_unique<PageEncoder>(backend, weights, patch, vision, resampler);
            },
            decoder};
  }
};

}  // namespace

extern const Architecture kosmos2_5;
const Architecture kosmos2_5 = VisionLanguageFamily<Kosmos2_5>::architecture();

}  // namespace ke
