// LLaVA (v1, v1.5, TinyLLaVA): patches of CLIP's last but one layer -> linear or MLP projector -> LLaMA. The only file
// that knows this model.
#include "models/pair.h"
#include "models/patch_rows.h"

namespace ke {
namespace {

struct Llava : PatchRowsModel<Llava> {
  static constexpr const char* kName = "llava";
  static PatchRowsKind kind() {
    return {kName, TowerKind::Clip, /*qkv_bias=*/false, /*may_tie=*/false, spm_bpe_rows, {"pad", "crop"}};
  }
};

// Of Vicuna (v1.5), and of v1, which calls the user a human.
PromptFormats chat_about(const std::string& user) {
  PromptFormats p;
  p.system =
      "A chat between a curious " + user +
      " and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the " +
      user + "'s questions. ";
  p.caption = "USER: {image}\nProvide a one-sentence caption for the provided image. ASSISTANT:";
  p.caption_detailed = "USER: {image}\nDescribe this image in detail. ASSISTANT:";
  p.question = "USER: {image}\n{question} ASSISTANT:";
  return p;
}

std::shared_ptr<GgufFile> join(std::shared_ptr<GgufFile> text, std::shared_ptr<GgufFile> vision) {
  const PairKind kind = {Llava::kName, "<image>", chat_about("user"), chat_about("human"), "pad", "crop", 512};
  return join_pair(kind, std::move(text), std::move(vision));
}

constexpr Architecture with_pairs(Architecture a) {
  a.join = join;
  a.pair_text = "llama";
  return a;
}

}  // namespace

extern const Architecture llava;
const Architecture llava = with_pairs(VisionLanguageFamily<Llava>::architecture());

}  // namespace ke
