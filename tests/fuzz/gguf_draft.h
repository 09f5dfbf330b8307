// A GGUF file as a list of parts that can each be made wrong, and the smallest valid KOSMOS-2 model in that form.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "random.h"

namespace fuzz {

// Everything that is written is a field of its own: lengths and counts need not be those of the bytes that follow.
struct Entry {
  std::string key;
  uint64_t key_length;
  uint32_t type;
  Bytes value;  // for a string its length prefix and bytes, for an array element type, count and elements
};

struct TensorDraft {
  std::string name;
  uint64_t name_length;
  uint32_t rank;
  std::vector<uint64_t> dims;  // innermost first
  uint32_t type;
  uint64_t offset;
  Bytes data;
};

struct Draft {
  std::string magic = "GGUF";
  uint32_t version = 3;
  int64_t extra_tensors = 0, extra_entries = 0;  // added to the announced counts
  uint64_t alignment = 64;                       // of the data as written
  std::vector<Entry> entries;
  std::vector<TensorDraft> tensors;

  void place();  // offsets from sizes and alignment
  Bytes bytes() const;
  Entry* find(const std::string& key);
};

// The types of values.
enum : uint32_t { kU8 = 0, kI32 = 5, kU32 = 4, kF32 = 6, kBool = 7, kString = 8, kArray = 9, kU64 = 10 };

void put(Bytes& out, uint64_t value, int bytes);
Bytes whole(uint64_t value, int bytes);
Bytes real(float value);
Bytes string(const std::string& text);
Entry entry(std::string key, uint32_t type, Bytes value);

// The sizes of a model; any that satisfies the schema's cross-checks loads.
struct Sizes {
  uint32_t layers = 1, width = 16, ff = 16, heads = 2, context = 64, latents = 4, bins = 2;
  uint32_t vision_layers = 1, vision_width = 16, vision_ff = 16, vision_heads = 2, image = 28, patch = 14;
};
Sizes random_sizes(Random& random);
// weight_type: GGUF's id of the matrices that have whole blocks (0 F32, 1 F16, 8 Q8_0, 12 Q4_K ...).
Draft valid_model(Random& random, const Sizes& sizes, uint32_t weight_type);

// Makes between none and a few parts wrong.
void mutate(Random& random, Draft& draft);

}  // namespace fuzz
