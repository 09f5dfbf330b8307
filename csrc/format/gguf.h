// Bounded reader of GGUF files, versions 2 and 3, little endian
// (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Every count, length, offset and shape is checked before
// anything is allocated; whatever is accepted can be used without further checks. Anything else is ModelCorrupt, saying
// what was expected, what was found, and where.
//
//   what                            accepted
//   tensors                         0..65,536, names unique
//   metadata entries                0..4,096, keys unique
//   key, tensor name                1..1,024 bytes of UTF-8 without control characters
//   string value                    0..16 MiB
//   array                           0..4,194,304 elements; arrays of arrays are refused
//   boolean                         0 or 1
//   header (all before the data)    at most 64 MiB
//   tensor dimensions               1..4, each at least 1; the innermost a multiple of the type's block
//   general.alignment               uint32, a power of two, 8..65,536 (32 when absent)
//   tensor data                     aligned, inside the file, no two tensors overlapping
//   tensor type                     the types of quant/dtype.h
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "format/tensor.h"

namespace ke {

class MappedFile;
enum class LoadMode { Mmap, Copy };

// GGUF's ids of value types, in its order.
enum class MetaType : uint32_t {
  UInt8,
  Int8,
  UInt16,
  Int16,
  UInt32,
  Int32,
  Float32,
  Bool,
  String,
  Array,
  UInt64,
  Int64,
  Float64
};
const char* meta_type_name(MetaType type);  // "uint32", "string", ...
uint32_t meta_type_bytes(MetaType type);    // of a scalar; 0 for strings and arrays

// One metadata value. Strings and arrays are views into the file's bytes, alive as long as the GgufFile.
struct MetaValue {
  MetaType type = MetaType::UInt8;
  MetaType element_type = MetaType::UInt8;  // of an array; never Array
  uint64_t count = 0;                       // of an array
  uint64_t scalar = 0;                      // raw bits of a scalar, zero-extended
  std::string_view text;                    // of a string
  const uint8_t* data = nullptr;            // first element of an array (strings: first length prefix)

  std::vector<std::string_view> strings() const;  // of an array of strings
};

class GgufFile;

// One file that is made of others: names, metadata and order of tensors are its own, bytes are theirs.
struct GgufJoin {
  struct Entry {
    Tensor tensor;                   // as the joined file shows it: name, type, shape, bytes; data is found in `stored`
    size_t file = 0;                 // of `files`
    const Tensor* stored = nullptr;  // in that file; the joined tensor may be its first rows
    std::vector<int64_t> rows;       // row i of the tensor is this row of `stored`; empty: as they are
  };
  std::string path;  // for messages
  std::vector<std::shared_ptr<GgufFile>> files;
  std::vector<std::pair<std::string, MetaValue>> metadata;  // values: of the files, or in `kept`
  std::vector<Entry> tensors;
  std::shared_ptr<const void> kept;
};

class GgufFile {
 public:
  // ModelNotFound, Io, OutOfMemory as MappedFile; ModelCorrupt if the file violates the table above.
  static std::shared_ptr<GgufFile> open(const std::string& path, LoadMode mode);
  // ModelCorrupt if two keys or tensors have one name. Rows in another order are copied when a tensor is looked up,
  // until it is released.
  static std::shared_ptr<GgufFile> join(GgufJoin parts);
  ~GgufFile();

  const std::string& path() const;
  uint64_t file_bytes() const;                             // of all files
  std::vector<const MappedFile*> files() const;            // that hold the bytes, in order
  const std::vector<Tensor>& tensors() const;              // in file order
  const Tensor* find_tensor(std::string_view name) const;  // nullptr if there is none
  uint64_t tensor_offset(const Tensor& tensor) const;      // bytes from the start of the file that holds it

  // Typed getters: an absent key or another type is ModelCorrupt with key, expected type and what was found.
  bool has(std::string_view key) const;
  uint32_t u32(std::string_view key) const;
  int32_t i32(std::string_view key) const;
  float f32(std::string_view key) const;
  bool boolean(std::string_view key) const;
  std::string string(std::string_view key) const;
  std::vector<std::string> strings(std::string_view key) const;
  std::vector<float> floats(std::string_view key) const;
  std::vector<int32_t> ints(std::string_view key) const;                   // int32 array
  std::vector<uint8_t> bytes(std::string_view key) const;                  // uint8 or int8 array
  const std::vector<std::pair<std::string, MetaValue>>& metadata() const;  // in file order

  const MetaValue* find(std::string_view key) const;  // of any type; nullptr if there is none

  // The tensor's pages will not be needed soon: lets the system free them (no-op in copy mode). Its data is looked up
  // again before it is read again.
  void release(const Tensor& tensor) const;
  // Called by release, to report a load's progress; may throw to end it. An empty function removes it. Not while
  // another thread releases.
  void watch_release(std::function<void(const Tensor&)> watcher);

 private:
  struct State;
  explicit GgufFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ke
