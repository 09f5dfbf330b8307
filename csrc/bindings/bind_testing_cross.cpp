// kosmos_edge._core.testing: an engine of a small Flamingo, whose text looks at images through gated cross-attention,
// for tests of what the engine does with such models. It has no row in the registry.
#include <nanobind/stl/shared_ptr.h>

#include "bindings/bind_engine.h"
#include "models/shapes.h"
#include "models/square_encoder.h"

namespace ke {
namespace {

struct FlamingoConfig : VisionLanguageConfig {
  int32_t image_token = 0;
};

// CLIP's patches, a linear projector, and a LLaMA with cross layers of its heads' shape before blocks 0, 2, ... Rows:
// images stand in the sequence, too, behind an <image> token; else <image> is all that stands there.
template <bool Rows>
struct Flamingo {
  static constexpr const char* kName = "flamingo";
  using Config = FlamingoConfig;

  static Schema rows(Config& c) {
    c.rows_in_sequence = Rows;
    const Schema own = {
        token_id(concat(kName, ".image.token_id"), &c.image_token, "a tag"),
    };
    return general_rows(kName, c.general) + rotary_decoder_rows(kName, c.decoder) +
           generation_rows(kName, c.generation) + prompt_rows(kName, c.prompts) + chat_prompt_rows(kName, c.prompts) +
           vision_rows(kName, c.vision) + spm_bpe_rows(kName, c.tokenizer) + own;
  }

  static ModelInfo info(const GgufFile& file, const Config& c) {
    ModelInfo info = vision_language_info(file, kName, c);
    info.image_tokens = Rows ? c.vision.patches() : 0;
    info.never = {c.image_token};
    if (Rows)
      info.image = {{c.image_token}, {}, c.image_token, 0};
    else
      info.image = {{}, {c.image_token}, c.image_token, 0};
    return info;
  }

  static VisionLanguageParts parts(const Config& c) {
    SquareParts p;
    p.image = image_input(c.vision);
    p.vision = tower_patches(c.vision, -1);
    MlpShape projector;
    projector.feature_width = c.vision.width, projector.width = c.vision.projection, projector.products = 1;
    p.load_projector = [projector](Backend& backend, Weights& weights) {
      return load_mlp(backend, weights, projector);
    };
    DecoderShape decoder = rotary_decoder(c.decoder);
    decoder.cross = {/*every=*/2, /*first=*/0, c.vision.projection, /*head_norms=*/false, decoder.block};
    return square_parts(p, decoder, Rows);
  }
};

std::shared_ptr<Engine> load(const std::string& path, bool rows, const std::string& device, size_t prefix_bytes) {
  LoadOptions o;
  o.backend = {device, 1, ""};
  o.prefix_bytes = prefix_bytes;
  o.load_model = rows ? VisionLanguageFamily<Flamingo<true>>::load : VisionLanguageFamily<Flamingo<false>>::load;
  nb::gil_scoped_release release;
  return Engine::load(path, o);
}

}  // namespace

void bind_testing_cross(nb::module_& m) {
  nb::module_ t = nb::cast<nb::module_>(m.attr("testing"));
  t.def("flamingo", &load, nb::arg("path"), nb::arg("rows") = false, nb::arg("device") = "cpu",
        nb::arg("prefix_bytes") = LoadOptions{}.prefix_bytes);
}

}  // namespace ke
