// OpenFlamingo with MPT: scores that fall with the distance of a key (ALiBi) instead of positions, no biases, perhaps
// norms of queries and keys, the embedding as output matrix. The only file that knows this model.
#include "models/patch_flamingo.h"

namespace ke {
namespace {

struct OpenFlamingoMptConfig : PatchFlamingoConfig {
  float most_slope = 0;  // see AlibiPositions
  bool qk_norm = false;
};

struct OpenFlamingoMpt {
  static constexpr const char* kName = "openflamingo_mpt";
  using Config = OpenFlamingoMptConfig;

  static Schema rows(Config& c) {
    const Schema own = {
        named("decoder.alibi", real(concat(kName, ".attention.max_alibi_bias"), 0.5, 64, &c.most_slope)),
        flag(concat(kName, ".attention.qk_norm"), &c.qk_norm),
    };
    return patch_flamingo_rows(kName, c) + own;
  }

  static ModelInfo info(const GgufFile& file, const Config& c) {
    ModelInfo info = patch_flamingo_info(file, kName, c);
    check_head_norms(file, concat(kName, ".attention.qk_norm"), c.qk_norm, "blk.0.attn_q_norm.weight");
    return info;
  }

  static VisionLanguageParts parts(const Config& c) {
    DecoderShape decoder = patch_flamingo_decoder(c);
    decoder.block.bias = decoder.block.norm.bias = false;
    decoder.block.qk_norm = c.qk_norm;
    decoder.position = AlibiPositions{c.decoder.heads, c.most_slope};
    return patch_flamingo_parts(c, decoder);
  }
};

}  // namespace

extern const Architecture openflamingo_mpt;
const Architecture openflamingo_mpt = VisionLanguageFamily<OpenFlamingoMpt>::architecture();

}  // namespace ke
