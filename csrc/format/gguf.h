// Bounded reader of GGUF files: every count, length, offset and shape is checked before anything is allocated.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "format/tensor.h"

namespace ke {

enum class LoadMode { Mmap, Copy };

// One metadata value. Strings and arrays are views into the file's bytes, alive as long as the GgufFile.
struct MetaValue {
  uint32_t type = 0;          // GGUF value type id
  uint32_t element_type = 0;  // of an array
  uint64_t count = 0;         // of an array
  uint64_t scalar = 0;        // raw bits of a scalar
  std::string_view text;      // of a string
  const uint8_t* data = nullptr;  // first element of an array (strings: first length prefix)
};

class GgufFile {
 public:
  static std::shared_ptr<GgufFile> open(const std::string& path, LoadMode mode);
  ~GgufFile();

  const std::string& path() const;
  uint64_t file_bytes() const;
  const std::vector<Tensor>& tensors() const;
  const Tensor* find_tensor(std::string_view name) const;

  // Typed getters: an absent key or another type is ModelCorrupt with key, expected type and what was found.
  bool has(std::string_view key) const;
  uint32_t u32(std::string_view key) const;
  float f32(std::string_view key) const;
  bool boolean(std::string_view key) const;
  std::string string(std::string_view key) const;
  std::vector<std::string> strings(std::string_view key) const;
  std::vector<float> floats(std::string_view key) const;
  std::vector<int32_t> ints(std::string_view key) const;  // int32 array
  std::vector<uint8_t> bytes(std::string_view key) const; // uint8 or int8 array
  std::vector<std::pair<std::string, MetaValue>> metadata() const;  // in file order

  // The tensor's pages will not be needed soon: lets the system take them back (no-op in copy mode).
  void release(const Tensor& tensor) const;

 private:
  struct State;
  explicit GgufFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ke
