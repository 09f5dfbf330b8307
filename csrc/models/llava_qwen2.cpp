// LLaVA with Qwen2 (llava-interleave-qwen): all patches of SigLIP -> MLP projector -> Qwen2, several images in one
// prompt. The only file that knows this model.
#include "models/patch_rows.h"

namespace ke {
namespace {

struct LlavaQwen2 : PatchRowsModel<LlavaQwen2> {
  static constexpr const char* kName = "llava_qwen2";
  static PatchRowsKind kind() {
    return {kName, TowerKind::Siglip, /*qkv_bias=*/true, /*may_tie=*/true, byte_bpe_rows, {"squash", "pad"}};
  }
};

}  // namespace

extern const Architecture llava_qwen2;
const Architecture llava_qwen2 = VisionLanguageFamily<LlavaQwen2>::architecture();

}  // namespace ke
