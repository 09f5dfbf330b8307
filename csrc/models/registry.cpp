#include "format/utf8.h"
#include "models/architecture.h"

// The architectures that this build runs: one line each.
#define KE_ARCHITECTURES(ROW) \
  ROW(kosmos2)                \
  ROW(kosmos1)                \
  ROW(kosmos2_5)              \
  ROW(llava)                  \
  ROW(llava_qwen2)            \
  ROW(blip2)

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
  fail(ErrorCode::ModelCorrupt, file.path(), ": general.architecture is ", quoted(name),
       "; expected one that this build runs: ", known);
}

std::unique_ptr<Model> load_model(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend) {
  const Architecture& a = architecture_of(*file);
  return a.load(std::move(file), std::move(backend));
}

}  // namespace ke
