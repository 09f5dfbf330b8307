// The GGUF reader and the model's configuration for Python.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>

#include <bit>
#include <cstring>
#include <map>

#include "bindings/bind_common.h"
#include "format/gguf.h"
#include "format/utf8.h"
#include "format/weights.h"
#include "models/architecture.h"
#include "models/schema_groups.h"
#include "models/tokenizer_rows.h"

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

AnyDict metadata_dict(const GgufFile& file, uint64_t skip_longer_than) {
  nb::dict out;
  for (const auto& [key, value] : file.metadata())
    if (value.type != MetaType::Array || value.count <= skip_longer_than) out[text(key)] = python_value(value);
  return out;
}

// name, type, shape, offset, bytes
using TensorTuple = std::tuple<std::string, std::string, nb::typed<nb::tuple, int, nb::ellipsis>, uint64_t, uint64_t>;

static nb::typed<nb::list, TensorTuple> tensors(const GgufFile& file) {
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

static nb::object python_fact(const Fact& fact) {
  return std::visit([](const auto& value) { return nb::cast(value); }, fact.value);
}

static nb::object grounding_dict(const std::optional<Grounding>& g) {
  if (!g) return nb::none();
  nb::dict out;
  out["location_bins"] = g->bins;
  const std::pair<const char*, int32_t> ids[] = {
      {"phrase_begin", g->phrase_begin}, {"phrase_end", g->phrase_end}, {"object_begin", g->object_begin},
      {"object_end", g->object_end},     {"delimiter", g->delimiter},   {"first_location", g->first_location}};
  for (const auto& [name, id] : ids) out[name] = id;
  return out;
}

static nb::dict image_dict(const ImageLayout& layout) {
  nb::dict out;
  out["before"] = layout.before;
  out["row"] = layout.row;
  out["row_step"] = layout.row_step;
  out["after"] = layout.after;
  out["segment"] = layout.segment;
  return out;
}

AnyDict info_dict(const ModelInfo& info) {
  nb::dict out, prompts;
  out["architecture"] = info.architecture;
  out["name"] = info.name;
  out["notice"] = info.notice;
  out["trained_tasks"] = info.trained_tasks;
  out["context"] = info.context;
  out["vocabulary"] = info.vocab;
  out["image_tokens"] = info.image_tokens;
  out["width"] = info.width;
  out["tasks"] = info.tasks();
  out["embedding"] = info.embedding;
  if (info.embedding > 0) out["similarity_scale"] = info.similarity_scale;
  out["repetition_penalty"] = info.repetition_penalty;
  out["preprocessing"] = info.preprocessing;
  out["grounding"] = grounding_dict(info.grounding);
  if (info.text_boxes) out["text_boxes"] = true;
  out["image"] = image_dict(info.image);
  const std::pair<const char*, const std::string&> formats[] = {
      {"caption", info.prompts.caption},   {"caption_detailed", info.prompts.caption_detailed},
      {"question", info.prompts.question}, {"locate", info.prompts.locate},
      {"describe", info.prompts.describe}, {"grounding", info.prompts.grounding},
      {"read", info.prompts.read},         {"markdown", info.prompts.markdown}};
  for (const auto& [name, format] : formats) prompts[name] = format;
  if (info.prompts.chat) prompts["system"] = info.prompts.system;
  if (!info.prompts.follow_up.empty()) prompts["follow_up"] = info.prompts.follow_up;
  if (!info.prompts.grounding_words.empty()) prompts["grounding_words"] = info.prompts.grounding_words;
  out["prompts"] = prompts;
  if (info.prompts.chat) {
    nb::dict turns;
    turns["lead"] = info.prompts.lead;
    turns["closed"] = info.prompts.closed;
    turns["between"] = info.prompts.between;
    out["turns"] = turns;
  }
  for (const Fact& fact : info.facts) {
    const size_t dot = fact.name.find('.');
    if (dot == std::string::npos) {
      out[fact.name.c_str()] = python_fact(fact);
      continue;
    }
    const std::string part = fact.name.substr(0, dot);
    if (!out.contains(part.c_str())) out[part.c_str()] = nb::dict();
    out[part.c_str()][fact.name.substr(dot + 1).c_str()] = python_fact(fact);
  }
  if (!info.stop.empty()) out["stop"] = info.stop;
  out["eos"] = info.eos;  // what ends answers, which need not be the vocabulary's own end
  return out;
}

static AnyDict model_info(const std::string& path, const std::string& mmproj) {
  const std::shared_ptr<GgufFile> file = open_model(path, mmproj, LoadMode::Mmap);
  return info_dict(architecture_of(*file).describe(*file));
}

// The schemas' rows by architecture, for the tests that try every key.
static nb::dict model_schemas() {
  nb::dict out;
  for (const Architecture* a : architectures()) {
    nb::list rows;
    for (const SchemaRow& row : a->schema()) {
      nb::dict d;
      d["key"] = row.key;
      d["type"] = meta_type_name(row.type);
      d["array"] = row.array;
      d["required"] = row.required;
      d["min"] = row.min;
      d["max"] = row.max;
      d["count"] = row.count;
      d["only"] = row.only;
      d["among"] = row.among;
      d["rule"] = row.rule;
      rows.append(d);
    }
    out[a->name] = rows;
  }
  return out;
}

// The groups of rows of which models choose one, by name.
static std::map<std::string, Schema> groups(const std::string& architecture, DecoderConfig& d, TokenizerConfig& t) {
  return {{"decoder", decoder_rows(architecture, d)},
          {"rotary_decoder", rotary_decoder_rows(architecture, d)},
          {"unigram", unigram_rows(architecture, t)},
          {"spm_bpe", spm_bpe_rows(architecture, t)},
          {"byte_bpe", byte_bpe_rows(architecture, t)}};
}

// One of them by itself, with its checks: what its named rows give.
static nb::dict read_group(const std::string& path, const std::string& group) {
  const std::shared_ptr<GgufFile> file = GgufFile::open(path, LoadMode::Mmap);
  const std::string architecture = file->string("general.architecture");
  DecoderConfig d;
  TokenizerConfig t;
  const Schema rows = groups(architecture, d, t)[group];
  KE_CHECK(!rows.empty(), InvalidRequest, "no group of rows is called ", quoted(group));
  read_by_schema(*file, rows);
  if (group.ends_with("decoder")) {
    check_decoder(*file, architecture, d);
  } else {
    const int64_t count = static_cast<int64_t>(file->strings("tokenizer.ggml.tokens").size());
    VocabularyCheck(*file, architecture, count).check_special_tokens(t);
  }
  nb::dict out;
  for (const Fact& fact : facts_of(rows)) out[fact.name.c_str()] = python_fact(fact);
  return out;
}

static std::vector<std::string> group_keys() {
  DecoderConfig d;
  TokenizerConfig t;
  std::vector<std::string> out;
  for (const auto& [name, rows] : groups("", d, t))
    for (const SchemaRow& row : rows) out.push_back(row.key);
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
      .def_static(
          "pair",
          [](const std::string& path, const std::string& mmproj) {
            nb::gil_scoped_release release;
            return open_model(path, mmproj, LoadMode::Mmap);
          },
          nb::arg("path"), nb::arg("mmproj"),
          "A language model and its vision encoder, as llama.cpp has them, as one file in the form of ours. Errors as "
          "those\n"
          "of the constructor, and ModelCorrupt for what is no such pair.")
      .def(
          "metadata", [](const GgufFile& file) { return metadata_dict(file, UINT64_MAX); },
          "key -> value, in file order; arrays are lists.")
      .def("tensors", &tensors,
           "(name, dtype, shape outermost first, offset in the file, bytes) of each, in file order.")
      .def("tensor_data", &tensor_data, nb::arg("name"), "The stored bytes of one tensor.");
  m.def(
      "model_info", &model_info, nb::arg("path"), nb::arg("mmproj") = "",
      "What a model file says of its model, checked: architecture, name, notice, trained_tasks, context (positions),\n"
      "vocabulary and image_tokens (numbers), tasks, grounding (None, or the grid's location_bins and the token ids of "
      "its tags),\n"
      "image (ids before, of the rows and after one), prompts (with system where they are turns of a chat), stop "
      "(texts that end an answer, if there are some), and the sizes of its parts (vision, decoder, ...).\n"
      "ModelNotFound, KosmosIOError, ModelCorrupt.");
  nb::module_ testing = nb::borrow<nb::module_>(m.attr("testing"));
  testing.def("claim_tensors", &claim_tensors, nb::arg("path"), nb::arg("wanted"),
              "Load as a model does: [(name, shape)] -> the values of each; an error if a tensor is left over.");
  testing.def("read_group", &read_group, nb::arg("path"), nb::arg("group"),
              "Read a file by one shared group of schema rows: its facts by name, or ModelCorrupt.");
  testing.def("group_keys", &group_keys, "The keys of all such groups, without <architecture>.");
  testing.def("model_schemas", &model_schemas, "architecture -> its schema: a dict for each metadata key.");
  testing.def("release_tensor", [](const GgufFile& file, const std::string& name) { file.release(find(file, name)); });
}

}  // namespace ke
