// Schema tables: one row for every metadata key that a model reads, with its type, bounds, what else must hold and
// where the value goes. A model's table is composed of the shared groups in schema_groups.h and rows of its own; files
// are read by it and nothing else. tests/models/test_hostile_schema.py walks the tables: a key without a row or a row
// without a test fails.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "format/gguf.h"
#include "models/info.h"

namespace ke {

struct SchemaRow {
  std::string key;
  MetaType type;                    // of the value; of an array: of its elements
  bool array;                       // an array of type; otherwise one value
  bool required;                    // an absent key is an error; otherwise it is only checked when it is there
  double min, max;                  // inclusive: of a number (of each element of an array), of a text's bytes
  uint64_t count;                   // an array's elements; 0: see `rule`
  std::optional<std::string> only;  // the one text or flag ("true", "false") that is supported
  std::vector<std::string> among;   // the texts that are supported; empty: any
  std::string rule;                 // in words, what is checked against other keys; empty: nothing
  // Where the value goes; monostate: checked, read later.
  std::variant<std::monostate, int64_t*, int32_t*, float*, bool*, std::array<float, 3>*, std::string*,
               std::vector<std::string>*, std::vector<int32_t>*>
      out;
  std::string fact;  // the name under which facts_of() gives the value, "part.name" within a part; empty: it does not
};
using Schema = std::vector<SchemaRow>;

// Rows by kind of value. Without `rule` a row has none.
SchemaRow whole(std::string key, double min, double max, int64_t* out, std::string rule = {});
SchemaRow integer(std::string key, double min, double max, int64_t* out, std::string rule = {});  // may be negative
SchemaRow token_id(std::string key, int32_t* out, std::string rule);
SchemaRow real(std::string key, double min, double max, float* out);
SchemaRow triple(std::string key, double min, double max, std::array<float, 3>* out);
SchemaRow text(std::string key, std::string* out, std::string rule = {});
SchemaRow fixed_text(std::string key, std::string only);
SchemaRow one_text_of(std::string key, std::vector<std::string> among, std::string* out);
SchemaRow flag(std::string key, bool* out = nullptr);  // true or false; without `out` read by whoever goes by it
SchemaRow fixed_flag(std::string key, bool only);
SchemaRow list(std::string key, MetaType type, double min, double max, std::string rule);
SchemaRow integers(std::string key, double min, double max, std::vector<int32_t>* out, std::string rule);
SchemaRow pieces(std::string key, std::vector<std::string>* out, std::string rule);  // of a vocabulary

SchemaRow optional(SchemaRow row);                 // the key may be absent
SchemaRow named(std::string fact, SchemaRow row);  // its value is a fact
Schema operator+(Schema a, Schema b);              // one table behind the other

// Checks every row on its own (presence, type, bounds, fixed values) and stores the values. ModelCorrupt names the key,
// what was expected and what was found.
void read_by_schema(const GgufFile& file, const Schema& schema);

// The named rows' values, once they are read; what `out` points to must still be there.
std::vector<Fact> facts_of(const Schema& schema);

// ModelCorrupt with the file's path unless ok.
template <class... Args>
void check_file(const GgufFile& file, bool ok, const Args&... what) {
  KE_CHECK(ok, ModelCorrupt, file.path(), ": ", what...);
}
// An array has as many elements as it must.
void check_count(const GgufFile& file, const std::string& key, uint64_t found, uint64_t expected,
                 const std::string& what);

}  // namespace ke
