// OpenFlamingo with GPT-NeoX: rotary positions in a part of every head, biases, an output matrix of its own. The only
// file that knows this model.
#include "models/patch_flamingo.h"

namespace ke {
namespace {

struct OpenFlamingoConfig : PatchFlamingoConfig {
  int64_t rope_dims = 0;  // of a head
};

struct OpenFlamingo {
  static constexpr const char* kName = "openflamingo";
  using Config = OpenFlamingoConfig;

  static Schema rows(Config& c) {
    const Schema own = {
        named("decoder.rope_base", real(concat(kName, ".rope.freq_base"), 1, 1e9, &c.decoder.rope_base)),
        named("decoder.rope_dims",
              whole(concat(kName, ".rope.dimension_count"), 2, 256, &c.rope_dims, "even, at most the width of a head")),
    };
    return patch_flamingo_rows(kName, c) + own;
  }

  static ModelInfo info(const GgufFile& file, const Config& c) {
    ModelInfo info = patch_flamingo_info(file, kName, c);
    check_file(file, c.rope_dims % 2 == 0 && c.rope_dims <= c.decoder.key_width(), kName, ".rope.dimension_count is ",
               c.rope_dims, "; expected an even number, at most the width of a head, ", c.decoder.key_width());
    return info;
  }

  static VisionLanguageParts parts(const Config& c) {
    DecoderShape decoder = patch_flamingo_decoder(c);
    decoder.position = RopePositions{.base = c.decoder.rope_base, .dims = c.rope_dims};
    decoder.tied_output = false;
    return patch_flamingo_parts(c, decoder);
  }
};

}  // namespace

extern const Architecture openflamingo;
const Architecture openflamingo = VisionLanguageFamily<OpenFlamingo>::architecture();

}  // namespace ke
