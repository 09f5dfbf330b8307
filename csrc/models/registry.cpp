// general.architecture -> model: one line each.
#include "format/utf8.h"
#include "models/kosmos2.h"

namespace ke {

namespace {
struct Architecture {
  const char* name;
  std::unique_ptr<Model> (*load)(std::shared_ptr<GgufFile>, std::shared_ptr<Backend>);
};
constexpr Architecture kArchitectures[] = {
    {"kosmos2", load_kosmos2},
};
}  // namespace

std::unique_ptr<Model> load_model(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend) {
  const std::string name = file->string("general.architecture");
  std::string known;
  for (const Architecture& a : kArchitectures) {
    if (name == a.name) return a.load(std::move(file), std::move(backend));
    known += concat(known.empty() ? "" : ", ", a.name);
  }
  fail(ErrorCode::ModelCorrupt, file->path(), ": general.architecture is ", quoted(name),
       "; expected one that this build runs: ", known);
}

}  // namespace ke
