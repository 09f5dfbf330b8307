#include "format/utf8.h"
#include "models/architecture.h"

// The architectures that this build runs: one line each.
#define KE_ARCHITECTURES(ROW) \
  ROW(kosmos2)                \
  ROW(kosmos1)                \
  ROW(kosmos2_5)              \
  ROW(llava)                  \
  ROW(llava_qwen2)            \
  ROW(idefics)                \
  ROW(openflamingo)           \
  ROW(openflamingo_mpt)       \
  ROW(blip2)                  \
  ROW(instructblip)           \
  ROW(blip2_t5)               \
  ROW(instructblip_t5)        \
  ROW(minigpt4)               \
  ROW(minigpt_v2)             \
  ROW(linear_prefix)          \
  ROW(mplug_owl)              \
  ROW(clip_towers)

namespace ke {

#define KE_DECLARE(name) extern const Architecture name;
KE_ARCHITECTURES(KE_DECLARE)
#undef KE_DECLARE

const std::vector<const Architecture*>& architectures() {
#define KE_LIST(name) &name,
  static const std::vector<const Architecture*> all = {KE_ARCHITECTURES(KE_LIST)};
#undef KE_LIST
  return all;
}

const Architecture& architecture_of(const GgufFile& file) {
  const std::string name = file.string("general.architecture");
  std::string known;
  for (const Architecture* a : architectures()) {
    if (name == a->name) return *a;
    known += concat(known.empty() ? "" : ", ", a->name);
  }
  const char* hint = "";
  for (const Architecture* a : architectures())
    if (a->pair_text && name == a->pair_text) hint = "; the language model of a pair needs its mmproj file, too";
  if (name == "clip") hint = "; the mmproj file of a pair goes with its language model's file, which comes first";
  fail(ErrorCode::ModelCorrupt, file.path(), ": general.architecture is ", quoted(name),
       "; expected one that this build runs: ", known, hint);
}

std::shared_ptr<GgufFile> open_model(const std::string& path, const std::string& mmproj, LoadMode mode) {
  std::shared_ptr<GgufFile> file = GgufFile::open(path, mode);
  if (mmproj.empty()) return file;
  const std::string name = file->string("general.architecture");
  std::string known;
  for (const Architecture* a : architectures()) {
    if (!a->join) continue;
    if (name == a->pair_text) return a->join(std::move(file), GgufFile::open(mmproj, mode));
    known += concat(known.empty() ? "" : ", ", a->pair_text);
  }
  fail(ErrorCode::ModelCorrupt, path, ": general.architecture is ", quoted(name),
       "; expected a language model that an mmproj file goes with: ", known);
}

std::unique_ptr<Model> load_model(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend, DType kv_type) {
  const Architecture& a = architecture_of(*file);
  return a.load(std::move(file), std::move(backend), kv_type);
}

}  // namespace ke
