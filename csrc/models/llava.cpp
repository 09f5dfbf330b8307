// LLaVA (v1, v1.5, TinyLLaVA): patches of CLIP's last but one layer -> linear or MLP projector -> LLaMA. The only file
// that knows this model.
#include "models/patch_rows.h"

namespace ke {
namespace {

struct Llava : PatchRowsModel<Llava> {
  static constexpr const char* kName = "llava";
  static PatchRowsKind kind() {
    return {kName, TowerKind::Clip, /*qkv_bias=*/false, /*may_tie=*/false, spm_bpe_rows, {"pad", "crop"}};
  }
};

}  // namespace

extern const Architecture llava;
const Architecture llava = VisionLanguageFamily<Llava>::architecture();

}  // namespace ke
