// The GGUF reader and the model's configuration for Python.
#include <nanobind/stl/shared_ptr.h>

#include <bit>
#include <cstring>

#include "bindings/bind_common.h"
#include "format/gguf.h"
#include "format/utf8.h"
#include "format/weights.h"
#include "models/kosmos2_config.h"
#include "models/kosmos2_schema.h"

namespace ke {

// Text as Python sees it. Strings of the file need not be UTF-8 (keys and names are checked): other bytes become
// surrogate escapes, as in file names, so that nothing is lost and nothing fails.
static nb::object text(std::string_view s) {
  return nb::steal(PyUnicode_DecodeUTF8(s.data(), static_cast<Py_ssize_t>(s.size()), "surrogateescape"));
}

static nb::object number(MetaType type, const uint8_t* bytes) {
  uint64_t raw = 0;
  std::memcpy(&raw, bytes, meta_type_bytes(type));
  switch (type) {
    case MetaType::UInt8:
    case MetaType::UInt16:
    case MetaType::UInt32:
    case MetaType::UInt64:
      return nb::cast(raw);
    case MetaType::Int8:
      return nb::cast(static_cast<int>(static_cast<int8_t>(raw)));
    case MetaType::Int16:
      return nb::cast(static_cast<int>(static_cast<int16_t>(raw)));
    case MetaType::Int32:
      return nb::cast(static_cast<int32_t>(raw));
    case MetaType::Int64:
      return nb::cast(static_cast<int64_t>(raw));
    case MetaType::Float32:
      return nb::cast(static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(raw))));
    case MetaType::Float64:
      return nb::cast(std::bit_cast<double>(raw));
    case MetaType::Bool:
      return nb::cast(raw != 0);
    case MetaType::String:
    case MetaType::Array:
      break;
  }
  fail(ErrorCode::Internal, "no scalar type: ", meta_type_name(type));
}

static nb::object python_value(const MetaValue& v) {
  if (v.type == MetaType::String) return text(v.text);
  if (v.type != MetaType::Array) return number(v.type, reinterpret_cast<const uint8_t*>(&v.scalar));
  nb::list out;
  if (v.element_type == MetaType::String)
    for (std::string_view s : v.strings()) out.append(text(s));
  else
    for (uint64_t i = 0; i < v.count; ++i)
      out.append(number(v.element_type, v.data + i * meta_type_bytes(v.element_type)));
  return out;
}

nb::dict metadata_dict(const GgufFile& file, uint64_t skip_longer_than) {
  nb::dict out;
  for (const auto& [key, value] : file.metadata())
    if (value.type != MetaType::Array || value.count <= skip_longer_than) out[text(key)] = python_value(value);
  return out;
}

static nb::list tensors(const GgufFile& file) {
  nb::list out;
  for (const Tensor& t : file.tensors()) {
    nb::list shape;
    for (int64_t extent : t.shape) shape.append(extent);
    out.append(nb::make_tuple(t.name, dtype_info(t.dtype).name, nb::tuple(shape), file.tensor_offset(t), t.bytes));
  }
  return out;
}

static const Tensor& find(const GgufFile& file, const std::string& name) {
  const Tensor* t = file.find_tensor(name);
  KE_CHECK(t, InvalidRequest, file.path(), ": no tensor is called ", quoted(name));
  return *t;
}

static nb::bytes tensor_data(const GgufFile& file, const std::string& name) {
  const Tensor& t = find(file, name);
  return nb::bytes(t.data, t.bytes);
}

static LoadMode mode_of(std::string_view mode) {
  KE_CHECK(mode == "mmap" || mode == "copy", InvalidRequest, "mode is ", quoted(mode),
           "; expected \"mmap\" or \"copy\"");
  return mode == "mmap" ? LoadMode::Mmap : LoadMode::Copy;
}

static nb::list triple(const std::array<float, 3>& v) {
  nb::list out;
  for (float x : v) out.append(x);
  return out;
}

static nb::dict read_config(const std::string& path) {
  const Kosmos2Config c = Kosmos2Config::read(*GgufFile::open(path, LoadMode::Mmap));
  nb::dict vision, decoder, out;
  vision["image_size"] = c.vision.image_size;
  vision["patch_size"] = c.vision.patch_size;
  vision["width"] = c.vision.width;
  vision["ff_width"] = c.vision.ff_width;
  vision["layers"] = c.vision.layers;
  vision["heads"] = c.vision.heads;
  vision["eps"] = c.vision.eps;
  vision["mean"] = triple(c.vision.mean);
  vision["std"] = triple(c.vision.std);
  decoder["width"] = c.decoder.width;
  decoder["ff_width"] = c.decoder.ff_width;
  decoder["layers"] = c.decoder.layers;
  decoder["heads"] = c.decoder.heads;
  decoder["context"] = c.decoder.context;
  decoder["vocab"] = c.decoder.vocab;
  decoder["eps"] = c.decoder.eps;
  out["vision"] = vision;
  out["decoder"] = decoder;
  out["latents"] = c.latents;
  out["location_bins"] = c.location_bins;
  out["max_new_tokens"] = c.max_new_tokens;
  out["no_repeat_ngram_size"] = c.no_repeat_ngram_size;
  const std::pair<const char*, int32_t> ids[] = {{"bos", c.bos},
                                                 {"eos", c.eos},
                                                 {"pad", c.pad},
                                                 {"unk", c.unk},
                                                 {"image_begin", c.image_begin},
                                                 {"image_end", c.image_end},
                                                 {"first_slot", c.first_slot},
                                                 {"phrase_begin", c.phrase_begin},
                                                 {"phrase_end", c.phrase_end},
                                                 {"object_begin", c.object_begin},
                                                 {"object_end", c.object_end},
                                                 {"delimiter", c.delimiter},
                                                 {"grounding", c.grounding},
                                                 {"first_patch_index", c.first_patch_index}};
  for (const auto& [name, id] : ids) out[name] = id;
  return out;
}

// The schema's rows, for the test that tries every key.
static nb::list model_schema() {
  Kosmos2Config config{};
  int64_t projection = 0;
  nb::list out;
  for (const SchemaRow& row : kosmos2_schema(config, projection)) {
    nb::dict d;
    d["key"] = row.key;
    d["type"] = meta_type_name(row.type);
    d["array"] = row.array;
    d["required"] = row.required;
    d["min"] = row.min;
    d["max"] = row.max;
    d["count"] = row.count;
    d["only"] = row.only ? nb::cast(row.only) : nb::none();
    d["rule"] = row.rule ? nb::cast(row.rule) : nb::none();
    out.append(d);
  }
  return out;
}

// What a model does when it loads: asks for each tensor by name and shape, decodes it, and finishes.
static nb::list claim_tensors(const std::string& path,
                              const std::vector<std::pair<std::string, std::vector<int64_t>>>& wanted) {
  Weights weights(GgufFile::open(path, LoadMode::Mmap));
  nb::list out;
  for (const auto& [name, shape] : wanted) out.append(weights.floats(name, shape));
  weights.finish();
  return out;
}

void bind_gguf(nb::module_& m) {
  nb::class_<GgufFile>(m, "GgufFile",
                       "A GGUF file, checked in full when it is opened (csrc/format/gguf.h lists the limits).")
      .def(nb::new_([](const std::string& path, std::string_view mode) {
             const LoadMode load_mode = mode_of(mode);
             nb::gil_scoped_release release;
             return GgufFile::open(path, load_mode);
           }),
           nb::arg("path"), nb::arg("mode") = "mmap",
           "Open and check a file; mode is \"mmap\" or \"copy\" (all bytes in memory).\n"
           "ModelNotFound, KosmosIOError, or ModelCorrupt saying what was expected, what was found, and where.")
      .def(
          "metadata", [](const GgufFile& file) { return metadata_dict(file, UINT64_MAX); },
          "key -> value, in file order; arrays are lists.")
      .def("tensors", &tensors,
           "(name, dtype, shape outermost first, offset in the file, bytes) of each, in file order.")
      .def("tensor_data", &tensor_data, nb::arg("name"), "The stored bytes of one tensor.");
  m.def("read_config", &read_config, nb::arg("path"),
        "The checked configuration of a KOSMOS-2 file: numbers of the vision encoder and the decoder, and token ids.");
  nb::module_ testing = nb::borrow<nb::module_>(m.attr("testing"));
  testing.def("claim_tensors", &claim_tensors, nb::arg("path"), nb::arg("wanted"),
              "Load as a model does: [(name, shape)] -> the values of each; an error if a tensor is left over.");
  testing.def("model_schema", &model_schema, "The schema of KOSMOS-2 files: a dict for each metadata key.");
  testing.def("release_tensor", [](const GgufFile& file, const std::string& name) { file.release(find(file, name)); });
}

}  // namespace ke
