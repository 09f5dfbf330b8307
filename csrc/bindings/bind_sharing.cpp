// Files of shared weights as Python looks into them: what they are of, and whether they are whole.
#include "base/error.h"
#include "bindings/bind_common.h"
#include "cpu/known_digests.h"
#include "cpu/panel_file.h"

namespace ke {

static Digest one_after_another(std::span<const uint8_t> bytes) {
  return cpu::digest_by_pieces(bytes, [](int64_t n, const std::function<void(int64_t)>& piece) {
    for (int64_t i = 0; i < n; ++i) piece(i);
  });
}

static AnyDict shared_weights_file(const std::string& path) {
  const cpu::PanelFile file(path);
  AnyDict d;
  d["model"] = cpu::hex_of(file.key().model);
  d["group"] = file.key().group;
  d["to_i8"] = file.key().to_i8 != 0;
  d["layout"] = cpu::kPanelLayout;
  d["origin"] =
      nb::steal(PyUnicode_DecodeFSDefaultAndSize(file.origin().data(), static_cast<Py_ssize_t>(file.origin().size())));
  d["bytes"] = file.bytes();
  nb::list entries;
  for (const cpu::PanelEntry& e : file.entries()) {
    nb::dict entry;
    entry["file"] = e.source.file == cpu::kComputed ? -1 : static_cast<int64_t>(e.source.file);
    entry["dtype"] = e.source.dtype;
    entry["offset"] = e.source.offset;
    entry["shape"] = std::pair(e.source.rows, e.source.cols);
    entry["bytes"] = e.source.bytes;
    entry["place"] = e.place;
    entry["digest"] = cpu::hex_of(e.digest);
    entries.append(entry);
  }
  d["entries"] = entries;
  return d;
}

void bind_sharing(nb::module_& m) {
  m.def("shared_weights_file", &shared_weights_file, nb::arg("path"),
        "What a file of shared weights says of itself: model (digest of its files' contents), group, to_i8, layout,\n"
        "origin (path of the model when it was made), bytes, entries. ModelNotFound, KosmosIOError (not trusted),\n"
        "ModelCorrupt.");
  m.def(
      "damaged_shared_weights",
      [](const std::string& path) {
        nb::gil_scoped_release release;
        return cpu::PanelFile(path).damaged(one_after_another);
      },
      nb::arg("path"), "How many of its matrices are not what was written; reads all of it. Errors as above.");
  m.def(
      "blake2b",
      [](nb::bytes data) {
        const Digest digest = blake2b({static_cast<const uint8_t*>(data.data()), data.size()});
        return nb::bytes(digest.data(), digest.size());
      },
      nb::arg("data"), "BLAKE2b-256, to be compared with hashlib's.");
}

}  // namespace ke
