// GGUF reader: one pass over the header with a checked cursor, then the placement of tensors.
#include "format/gguf.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>

#include "base/mapped_file.h"
#include "format/cursor.h"
#include "format/utf8.h"

namespace ke {

namespace {

constexpr uint64_t max_tensors = 65536, max_entries = 4096, max_name = 1024, max_string = 16 << 20, max_array = 4 << 20,
                   max_header = 64 << 20, max_dims = 4, max_alignment = 65536, min_alignment = 8,
                   default_alignment = 32;

struct MetaTypeInfo {
  const char* name;
  uint32_t bytes;  // 0: of variable length
};
constexpr MetaTypeInfo meta_types[] = {{"uint8", 1},  {"int8", 1},    {"uint16", 2}, {"int16", 2},  {"uint32", 4},
                                       {"int32", 4},  {"float32", 4}, {"bool", 1},   {"string", 0}, {"array", 0},
                                       {"uint64", 8}, {"int64", 8},   {"float64", 8}};

std::string describe(const MetaValue& v) {
  if (v.type != MetaType::Array) return meta_type_name(v.type);
  return concat("an array of ", v.count, " ", meta_type_name(v.element_type));
}

}  // namespace

const char* meta_type_name(MetaType type) { return meta_types[static_cast<uint32_t>(type)].name; }
uint32_t meta_type_bytes(MetaType type) { return meta_types[static_cast<uint32_t>(type)].bytes; }

std::vector<std::string_view> MetaValue::strings() const {
  KE_ASSERT(type == MetaType::Array && element_type == MetaType::String);
  std::vector<std::string_view> out;
  out.reserve(count);
  const uint8_t* p = data;  // lengths were checked when the file was opened
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t length;
    std::memcpy(&length, p, 8);
    out.emplace_back(reinterpret_cast<const char*>(p + 8), static_cast<size_t>(length));
    p += 8 + length;
  }
  return out;
}

struct GgufFile::State {
  std::string path;
  std::optional<MappedFile> file;  // none of a joined file
  std::vector<std::pair<std::string, MetaValue>> metadata;
  std::map<std::string_view, size_t> keys;  // into metadata
  std::vector<Tensor> tensors;
  std::map<std::string_view, size_t> names;  // into tensors
  uint64_t alignment = default_alignment;
  std::function<void(const Tensor&)> watcher;     // of releases
  GgufJoin joined;                                // its tensors are in the order of `tensors`
  std::mutex mutex;                               // of the copies, and the tensors that point at them
  std::map<size_t, std::vector<uint8_t>> copies;  // of tensors whose rows are in another order

  State(const std::string& name, LoadMode mode) : path(name) {
    file.emplace(name, mode == LoadMode::Mmap ? MapMode::Map : MapMode::Copy);
  }
  explicit State(GgufJoin parts);
  void copy_rows(size_t index);

  template <class... Args>
  void check(bool ok, const Args&... what) const {
    KE_CHECK(ok, ModelCorrupt, path, ": ", what...);
  }

  void parse();
  void check_magic() const;
  std::string_view name(Cursor& in, std::string_view what) const;
  MetaType value_type(Cursor& in, std::string_view key) const;
  MetaValue value(Cursor& in, std::string_view key) const;
  void read_tensor(Cursor& in, std::vector<uint64_t>* offsets);
  void place_tensors(uint64_t header_end, const std::vector<uint64_t>& offsets);
  const MetaValue& get(std::string_view key, MetaType type) const;
  const MetaValue& get_array(std::string_view key, MetaType element_type) const;
};

GgufFile::State::State(GgufJoin parts)
    : path(parts.path), metadata(std::move(parts.metadata)), joined(std::move(parts)) {
  for (size_t i = 0; i < metadata.size(); ++i)
    check(keys.emplace(metadata[i].first, i).second, "key ", quoted(metadata[i].first), " occurs twice");
  for (GgufJoin::Entry& e : joined.tensors) {
    e.tensor.data = e.rows.empty() ? e.stored->data : nullptr;
    tensors.push_back(e.tensor);
  }
  for (size_t i = 0; i < tensors.size(); ++i)
    check(names.emplace(tensors[i].name, i).second, "two tensors are called ", quoted(tensors[i].name));
}

void GgufFile::State::copy_rows(size_t index) {
  const GgufJoin::Entry& e = joined.tensors[index];
  const std::lock_guard lock(mutex);
  if (e.rows.empty() || tensors[index].data) return;
  std::vector<uint8_t>& copy = copies[index];
  copy.resize(e.tensor.bytes);
  const size_t row = e.tensor.bytes / e.rows.size();
  for (size_t i = 0; i < e.rows.size(); ++i)
    std::memcpy(copy.data() + i * row, e.stored->data + static_cast<size_t>(e.rows[i]) * row, row);
  tensors[index].data = copy.data();
}

void GgufFile::State::check_magic() const {
  const std::span<const uint8_t> b = file->bytes();
  check(b.size() >= 24, "not a GGUF file: ", b.size(), " bytes long, the header alone has 24");
  if (std::memcmp(b.data(), "GGUF", 4) == 0) return;
  std::string hex;
  for (size_t i = 0; i < 4; ++i)
    hex += concat(i ? " " : "", "0123456789abcdef"[b[i] >> 4], "0123456789abcdef"[b[i] & 15]);
  check(false, "not a GGUF file: expected it to begin with 47 47 55 46 (\"GGUF\"), found ", hex,
        b[0] == 'P' && b[1] == 'K' ? " (a zip archive, perhaps a checkpoint that must be converted first)" : "");
}

// A key or tensor name: it appears in messages, so it must be clean UTF-8.
std::string_view GgufFile::State::name(Cursor& in, std::string_view what) const {
  const uint64_t at = in.position();
  const std::string_view text = in.text(max_name, what);
  check(!text.empty(), what, " at byte ", at, " is empty");
  check(is_utf8(text), what, " at byte ", at, " is not valid UTF-8");
  for (char c : text)
    check(static_cast<unsigned char>(c) >= 32 && c != 127, what, " at byte ", at, " has a control character");
  return text;
}

MetaType GgufFile::State::value_type(Cursor& in, std::string_view key) const {
  const uint32_t id = in.read<uint32_t>("a value type");
  check(id < std::size(meta_types), "key ", quoted(key), " has value type ", id, "; known are 0..",
        std::size(meta_types) - 1);
  return static_cast<MetaType>(id);
}

MetaValue GgufFile::State::value(Cursor& in, std::string_view key) const {
  const std::string what = concat("the value of ", quoted(key));
  MetaValue v;
  v.type = value_type(in, key);
  if (v.type == MetaType::String) {
    v.text = in.text(max_string, what);
  } else if (v.type != MetaType::Array) {
    const uint32_t bytes = meta_type_bytes(v.type);
    std::memcpy(&v.scalar, in.take(bytes, what), bytes);
    check(v.type != MetaType::Bool || v.scalar <= 1, what, " is a bool of ", v.scalar, "; expected 0 or 1");
  } else {
    v.element_type = value_type(in, key);
    check(v.element_type != MetaType::Array, what, " is an array of arrays, which is not supported");
    v.count = in.read<uint64_t>(what);
    check(v.count <= max_array, what, " has ", v.count, " elements; at most ", max_array, " are accepted");
    if (v.element_type == MetaType::String) {
      v.data = in.take(0, what);
      for (uint64_t i = 0; i < v.count; ++i) in.text(max_string, what);
    } else {
      v.data = in.take_array(v.count, meta_type_bytes(v.element_type), what);
      if (v.element_type == MetaType::Bool)
        check(std::all_of(v.data, v.data + v.count, [](uint8_t b) { return b <= 1; }), what,
              " has a bool that is neither 0 nor 1");
    }
  }
  return v;
}

// name, number of dimensions, dimensions innermost first, type, offset from the start of the data.
void GgufFile::State::read_tensor(Cursor& in, std::vector<uint64_t>* offsets) {
  Tensor t;
  t.name = name(in, "a tensor name");
  const std::string who = concat("tensor ", quoted(t.name));
  const uint32_t dims = in.read<uint32_t>(who);
  check(dims >= 1 && dims <= max_dims, who, " has ", dims, " dimensions; expected 1..", max_dims);
  uint64_t count = 1;
  for (uint32_t i = 0; i < dims; ++i) {
    const uint64_t extent = in.read<uint64_t>(who);
    check(extent >= 1 && extent <= INT64_MAX, who, " has dimension ", i, " of ", extent, "; expected at least 1");
    check(checked_mul(count, extent, &count) && count <= INT64_MAX, who, " has more values than can be counted");
    t.shape.insert(t.shape.begin(), static_cast<int64_t>(extent));
  }
  const uint32_t type_id = in.read<uint32_t>(who);
  const DTypeInfo* type = find_dtype(type_id);
  if (!type) {
    std::string known;
    for (const DTypeInfo& d : all_dtypes())
      known += concat(known.empty() ? "" : ", ", d.name, " (", static_cast<uint32_t>(d.dtype), ")");
    check(false, who, " has type ", type_id, "; supported are ", known);
  }
  check(t.shape.back() % type->block_elems == 0, who, " has rows of ", t.shape.back(), " values; ", type->name,
        " needs a multiple of ", type->block_elems);
  t.dtype = type->dtype;
  uint64_t bytes = 0;
  check(checked_mul(count / type->block_elems, type->block_bytes, &bytes), who, " has more bytes than any file");
  t.bytes = bytes;
  const uint64_t offset = in.read<uint64_t>(who);
  check(offset % alignment == 0, who, " starts at offset ", offset, ", which is no multiple of the alignment ",
        alignment);
  offsets->push_back(offset);
  tensors.push_back(std::move(t));
}

void GgufFile::State::place_tensors(uint64_t header_end, const std::vector<uint64_t>& offsets) {
  const uint64_t size = file->bytes().size();
  uint64_t data_begin = 0;
  check(checked_pad(header_end, alignment, &data_begin), "the header has no end");
  for (size_t i = 0; i < tensors.size(); ++i) {
    Tensor& t = tensors[i];
    uint64_t begin = 0, end = 0;
    check(checked_add(data_begin, offsets[i], &begin) && checked_add(begin, t.bytes, &end) && end <= size, "tensor ",
          quoted(t.name), " needs ", t.bytes, " bytes at ", data_begin, " + ", offsets[i], "; the file has ", size,
          ": truncated or damaged");
    t.data = file->bytes().data() + begin;
  }
  std::vector<const Tensor*> order;
  for (const Tensor& t : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const Tensor* a, const Tensor* b) { return a->data < b->data; });
  for (size_t i = 1; i < order.size(); ++i)
    check(order[i - 1]->data + order[i - 1]->bytes <= order[i]->data, "tensors ", quoted(order[i - 1]->name), " and ",
          quoted(order[i]->name), " overlap");
  for (size_t i = 0; i < tensors.size(); ++i)
    check(names.emplace(tensors[i].name, i).second, "two tensors are called ", quoted(tensors[i].name));
}

void GgufFile::State::parse() {
  check_magic();
  const std::span<const uint8_t> all = file->bytes();
  const bool capped = all.size() > max_header;
  Cursor in(all.first(capped ? max_header : all.size()), path,
            capped ? "headers of more than 64 MiB are not accepted" : "the file is truncated or damaged");
  in.take(4, "the magic");
  const uint32_t version = in.read<uint32_t>("the version");
  check(version != __builtin_bswap32(2) && version != __builtin_bswap32(3),
        "a big-endian GGUF file; expected little endian");
  check(version == 2 || version == 3, "GGUF version ", version, "; expected 2 or 3");
  const uint64_t tensor_count = in.read<uint64_t>("the number of tensors");
  const uint64_t entry_count = in.read<uint64_t>("the number of metadata entries");
  check(tensor_count <= max_tensors, "the header announces ", tensor_count, " tensors; at most ", max_tensors,
        " are accepted");
  check(entry_count <= max_entries, "the header announces ", entry_count, " metadata entries; at most ", max_entries,
        " are accepted");

  for (uint64_t i = 0; i < entry_count; ++i) {
    const std::string_view key = name(in, "a metadata key");
    const MetaValue v = value(in, key);
    check(keys.emplace(key, metadata.size()).second, "key ", quoted(key), " occurs twice");
    metadata.emplace_back(key, v);
  }
  if (keys.count("general.alignment")) {
    alignment = get("general.alignment", MetaType::UInt32).scalar;
    check(alignment >= min_alignment && alignment <= max_alignment && (alignment & (alignment - 1)) == 0,
          "general.alignment is ", alignment, "; expected a power of two in ", min_alignment, "..", max_alignment);
  }
  std::vector<uint64_t> offsets;
  for (uint64_t i = 0; i < tensor_count; ++i) read_tensor(in, &offsets);
  place_tensors(in.position(), offsets);
}

const MetaValue& GgufFile::State::get(std::string_view key, MetaType type) const {
  const auto found = keys.find(key);
  check(found != keys.end(), "key ", quoted(key), " is missing; expected ", meta_type_name(type));
  const MetaValue& v = metadata[found->second].second;
  check(v.type == type, "key ", quoted(key), " is ", describe(v), "; expected ", meta_type_name(type));
  return v;
}

const MetaValue& GgufFile::State::get_array(std::string_view key, MetaType element_type) const {
  const auto found = keys.find(key);
  check(found != keys.end(), "key ", quoted(key), " is missing; expected an array of ", meta_type_name(element_type));
  const MetaValue& v = metadata[found->second].second;
  check(v.type == MetaType::Array && v.element_type == element_type, "key ", quoted(key), " is ", describe(v),
        "; expected an array of ", meta_type_name(element_type));
  return v;
}

std::shared_ptr<GgufFile> GgufFile::open(const std::string& path, LoadMode mode) {
  auto state = std::make_unique<State>(path, mode);
  state->parse();
  return std::shared_ptr<GgufFile>(new GgufFile(std::move(state)));
}

std::shared_ptr<GgufFile> GgufFile::join(GgufJoin parts) {
  return std::shared_ptr<GgufFile>(new GgufFile(std::make_unique<State>(std::move(parts))));
}

GgufFile::GgufFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
GgufFile::~GgufFile() = default;

const std::string& GgufFile::path() const { return state_->path; }
uint64_t GgufFile::file_bytes() const {
  uint64_t sum = state_->file ? state_->file->bytes().size() : 0;
  for (const auto& part : state_->joined.files) sum += part->file_bytes();
  return sum;
}
std::vector<const MappedFile*> GgufFile::files() const {
  if (state_->file) return {&*state_->file};
  std::vector<const MappedFile*> all;
  for (const auto& part : state_->joined.files)
    for (const MappedFile* file : part->files()) all.push_back(file);
  return all;
}

const std::vector<Tensor>& GgufFile::tensors() const { return state_->tensors; }

const Tensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = state_->names.find(name);
  if (found == state_->names.end()) return nullptr;
  if (!state_->file) state_->copy_rows(found->second);
  return &state_->tensors[found->second];
}

uint64_t GgufFile::tensor_offset(const Tensor& tensor) const {
  if (state_->file) return static_cast<uint64_t>(tensor.data - state_->file->bytes().data());
  const GgufJoin::Entry& e = state_->joined.tensors[state_->names.at(tensor.name)];
  return state_->joined.files[e.file]->tensor_offset(*e.stored);
}

bool GgufFile::has(std::string_view key) const { return state_->keys.count(key) != 0; }

const MetaValue* GgufFile::find(std::string_view key) const {
  const auto found = state_->keys.find(key);
  return found == state_->keys.end() ? nullptr : &state_->metadata[found->second].second;
}

uint32_t GgufFile::u32(std::string_view key) const {
  return static_cast<uint32_t>(state_->get(key, MetaType::UInt32).scalar);
}

int32_t GgufFile::i32(std::string_view key) const {
  return static_cast<int32_t>(static_cast<uint32_t>(state_->get(key, MetaType::Int32).scalar));
}

float GgufFile::f32(std::string_view key) const {
  return std::bit_cast<float>(static_cast<uint32_t>(state_->get(key, MetaType::Float32).scalar));
}

bool GgufFile::boolean(std::string_view key) const { return state_->get(key, MetaType::Bool).scalar != 0; }

std::string GgufFile::string(std::string_view key) const {
  return std::string(state_->get(key, MetaType::String).text);
}

std::vector<std::string> GgufFile::strings(std::string_view key) const {
  const std::vector<std::string_view> views = state_->get_array(key, MetaType::String).strings();
  return {views.begin(), views.end()};
}

template <class T>
static std::vector<T> copy_array(const MetaValue& v) {
  std::vector<T> out(v.count);
  if (v.count) std::memcpy(out.data(), v.data, v.count * sizeof(T));
  return out;
}

std::vector<float> GgufFile::floats(std::string_view key) const {
  return copy_array<float>(state_->get_array(key, MetaType::Float32));
}

std::vector<int32_t> GgufFile::ints(std::string_view key) const {
  return copy_array<int32_t>(state_->get_array(key, MetaType::Int32));
}

std::vector<uint8_t> GgufFile::bytes(std::string_view key) const {
  const auto found = state_->keys.find(key);
  const bool is_int8 =
      found != state_->keys.end() && state_->metadata[found->second].second.element_type == MetaType::Int8;
  return copy_array<uint8_t>(state_->get_array(key, is_int8 ? MetaType::Int8 : MetaType::UInt8));
}

const std::vector<std::pair<std::string, MetaValue>>& GgufFile::metadata() const { return state_->metadata; }

void GgufFile::release(const Tensor& tensor) const {
  if (state_->file) {
    state_->file->release(static_cast<size_t>(tensor_offset(tensor)), tensor.bytes);
  } else {
    const size_t index = state_->names.at(tensor.name);
    const GgufJoin::Entry& e = state_->joined.tensors[index];
    state_->joined.files[e.file]->release(*e.stored);
    if (!e.rows.empty()) {
      const std::lock_guard lock(state_->mutex);
      state_->copies.erase(index);
      state_->tensors[index].data = nullptr;
    }
  }
  if (state_->watcher) state_->watcher(tensor);
}

void GgufFile::watch_release(std::function<void(const Tensor&)> watcher) { state_->watcher = std::move(watcher); }

}  // namespace ke
