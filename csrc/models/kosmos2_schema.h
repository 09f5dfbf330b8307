// The schema of KOSMOS-2 files: one row for every metadata key that the runtime reads, with its type, bounds, what else
// must hold and where the value goes. kosmos2_config.cpp reads by this table and nothing else;
// tests/test_hostile_schema.py walks it, so that a key without a row or a row without a test fails.
#pragma once
#include <array>
#include <string>
#include <variant>
#include <vector>

#include "format/gguf.h"

namespace ke {

struct Kosmos2Config;

struct SchemaRow {
  const char* key;
  MetaType type;     // of the value; of an array: of its elements
  bool array;        // an array of type; otherwise one value
  bool required;     // an absent key is an error; otherwise it is only checked when it is there
  double min, max;   // inclusive: of a number (of each element of an array of numbers), of a text's bytes
  uint64_t count;    // an array's elements; 0: see `rule`
  const char* only;  // the one text or flag ("true", "false") that is supported; nullptr: any within the bounds
  const char* rule;  // in words, what is checked against other keys; nullptr: nothing
  std::variant<std::monostate, int64_t*, int32_t*, float*, std::array<float, 3>*>
      out;  // monostate: checked, read later
};

// The table, with places in config; projection is where clip.vision.projection_dim goes.
std::vector<SchemaRow> kosmos2_schema(Kosmos2Config& config, int64_t& projection);

// Checks every row on its own (presence, type, bounds, fixed values) and stores the numbers. ModelCorrupt names the
// key, what was expected and what was found.
void read_by_schema(const GgufFile& file, const std::vector<SchemaRow>& schema);

}  // namespace ke
