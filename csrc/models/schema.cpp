#include "models/schema.h"

#include <algorithm>
#include <cmath>

#include "format/utf8.h"

namespace ke {
namespace {

constexpr uint64_t any = 0;
constexpr double id_max = 1 << 20, text_max = 4096;

// Whole numbers in full, others in six digits.
std::string number_text(double v) {
  return std::fabs(v) < 1e15 && v == std::floor(v) ? concat(static_cast<int64_t>(v)) : concat(v);
}

SchemaRow scalar(std::string key, MetaType type, double min, double max) {
  return {std::move(key), type, false, true, min, max, any, std::nullopt, {}, {}, std::monostate{}, {}};
}

class RowReader {
 public:
  RowReader(const GgufFile& file, const SchemaRow& row) : file_(file), row_(row) {}

  void read() const {
    if (!row_.required && !file_.has(row_.key)) return;
    if (row_.array) return array();
    if (row_.type == MetaType::String) return text(file_.string(row_.key));
    if (row_.type == MetaType::Bool) {
      const std::string found = file_.boolean(row_.key) ? "true" : "false";
      check(!row_.only || found == *row_.only, " is ", found, "; only ", row_.only.value_or(""), " is supported");
      if (const auto* out = std::get_if<bool*>(&row_.out)) **out = found == "true";
      return;
    }
    const bool is_real = row_.type == MetaType::Float32;
    const double value = is_real                        ? file_.f32(row_.key)
                         : row_.type == MetaType::Int32 ? static_cast<double>(file_.i32(row_.key))
                                                        : static_cast<double>(file_.u32(row_.key));
    check(inside(value), " is ", number_text(value), "; expected ", range());
    store(value);
  }

 private:
  template <class... Args>
  void check(bool ok, const Args&... what) const {
    check_file(file_, ok, row_.key, what...);
  }

  bool inside(double value) const {  // a file's 0.1 is the float32 next to it; NaN is in no range
    const bool is_real = row_.type == MetaType::Float32;
    return value >= (is_real ? static_cast<float>(row_.min) : row_.min) &&
           value <= (is_real ? static_cast<float>(row_.max) : row_.max);
  }

  std::string range() const {
    return row_.min == row_.max ? number_text(row_.min) : number_text(row_.min) + ".." + number_text(row_.max);
  }

  void text(const std::string& found) const {
    check(static_cast<double>(found.size()) <= row_.max && is_utf8(found), " has ", found.size(),
          " bytes; expected at most ", number_text(row_.max), " of valid UTF-8");
    check(!row_.only || found == *row_.only, " is ", quoted(found), "; expected ", quoted(row_.only.value_or("")));
    std::string expected;
    for (const std::string& one : row_.among) expected += concat(expected.empty() ? "" : " or ", quoted(one));
    check(expected.empty() || std::find(row_.among.begin(), row_.among.end(), found) != row_.among.end(), " is ",
          quoted(found), "; expected ", expected);
    if (const auto* out = std::get_if<std::string*>(&row_.out)) **out = found;
  }

  // The elements of the vocabulary's arrays are checked with the vocabulary, where they have names.
  void array() const {
    switch (row_.type) {
      case MetaType::Float32:
        return reals(file_.floats(row_.key));
      case MetaType::Int32:
        if (auto* const* out = std::get_if<std::vector<int32_t>*>(&row_.out))
          **out = file_.ints(row_.key);
        else
          (void)file_.ints(row_.key);
        return;
      case MetaType::UInt8:
        (void)file_.bytes(row_.key);
        return;
      default:
        if (auto* const* out = std::get_if<std::vector<std::string>*>(&row_.out))
          **out = file_.strings(row_.key);
        else
          (void)file_.strings(row_.key);
    }
  }

  void reals(const std::vector<float>& found) const {
    if (row_.count == any) return;
    check(found.size() == row_.count, " has ", found.size(), " values; expected ", row_.count,
          ", for red, green and blue");
    for (float x : found) check(inside(x), " has ", x, "; expected values in ", range());
    auto& out = *std::get<std::array<float, 3>*>(row_.out);
    for (size_t i = 0; i < out.size(); ++i) out[i] = found[i];
  }

  void store(double value) const {
    if (const auto* out = std::get_if<float*>(&row_.out)) **out = static_cast<float>(value);
    if (const auto* out = std::get_if<int32_t*>(&row_.out)) **out = static_cast<int32_t>(value);
    if (const auto* out = std::get_if<int64_t*>(&row_.out)) **out = static_cast<int64_t>(value);
  }

  const GgufFile& file_;
  const SchemaRow& row_;
};

}  // namespace

SchemaRow whole(std::string key, double min, double max, int64_t* out, std::string rule) {
  SchemaRow row = scalar(std::move(key), MetaType::UInt32, min, max);
  if (out) row.out = out;
  row.rule = std::move(rule);
  return row;
}

SchemaRow integer(std::string key, double min, double max, int64_t* out, std::string rule) {
  SchemaRow row = scalar(std::move(key), MetaType::Int32, min, max);
  row.out = out;
  row.rule = std::move(rule);
  return row;
}

SchemaRow token_id(std::string key, int32_t* out, std::string rule) {
  SchemaRow row = scalar(std::move(key), MetaType::UInt32, 0, id_max);
  row.out = out;
  row.rule = std::move(rule);
  return row;
}

SchemaRow real(std::string key, double min, double max, float* out) {
  SchemaRow row = scalar(std::move(key), MetaType::Float32, min, max);
  row.out = out;
  return row;
}

SchemaRow triple(std::string key, double min, double max, std::array<float, 3>* out) {
  SchemaRow row = scalar(std::move(key), MetaType::Float32, min, max);
  row.array = true;
  row.count = 3;
  row.out = out;
  return row;
}

SchemaRow text(std::string key, std::string* out, std::string rule) {
  SchemaRow row = scalar(std::move(key), MetaType::String, 0, text_max);
  row.out = out;
  row.rule = std::move(rule);
  return row;
}

SchemaRow fixed_text(std::string key, std::string only) {
  SchemaRow row = scalar(std::move(key), MetaType::String, 0, text_max);
  row.only = std::move(only);
  return row;
}

SchemaRow one_text_of(std::string key, std::vector<std::string> among, std::string* out) {
  SchemaRow row = scalar(std::move(key), MetaType::String, 0, text_max);
  row.among = std::move(among);
  if (out) row.out = out;
  return row;
}

SchemaRow flag(std::string key, bool* out) {
  SchemaRow row = scalar(std::move(key), MetaType::Bool, 0, 1);
  if (out) row.out = out;
  return row;
}

SchemaRow fixed_flag(std::string key, bool only) {
  SchemaRow row = scalar(std::move(key), MetaType::Bool, 0, 1);
  row.only = only ? "true" : "false";
  return row;
}

SchemaRow list(std::string key, MetaType type, double min, double max, std::string rule) {
  SchemaRow row = scalar(std::move(key), type, min, max);
  row.array = true;
  row.rule = std::move(rule);
  return row;
}

SchemaRow integers(std::string key, double min, double max, std::vector<int32_t>* out, std::string rule) {
  SchemaRow row = list(std::move(key), MetaType::Int32, min, max, std::move(rule));
  row.out = out;
  return row;
}

SchemaRow pieces(std::string key, std::vector<std::string>* out, std::string rule) {
  SchemaRow row = list(std::move(key), MetaType::String, 1, 1024, std::move(rule));
  row.out = out;
  return row;
}

SchemaRow optional(SchemaRow row) {
  row.required = false;
  return row;
}

SchemaRow named(std::string fact, SchemaRow row) {
  row.fact = std::move(fact);
  return row;
}

Schema operator+(Schema a, Schema b) {
  a.insert(a.end(), std::make_move_iterator(b.begin()), std::make_move_iterator(b.end()));
  return a;
}

void read_by_schema(const GgufFile& file, const Schema& schema) {
  for (const SchemaRow& row : schema) RowReader(file, row).read();
}

std::vector<Fact> facts_of(const Schema& schema) {
  std::vector<Fact> out;
  for (const SchemaRow& row : schema) {
    if (row.fact.empty()) continue;
    Fact fact{row.fact, int64_t{0}};
    if (const auto* v = std::get_if<int64_t*>(&row.out)) fact.value = **v;
    if (const auto* v = std::get_if<int32_t*>(&row.out)) fact.value = int64_t{**v};
    if (const auto* v = std::get_if<float*>(&row.out)) fact.value = double{**v};
    if (const auto* v = std::get_if<std::string*>(&row.out)) fact.value = **v;
    if (const auto* v = std::get_if<std::array<float, 3>*>(&row.out))
      fact.value = std::vector<double>((*v)->begin(), (*v)->end());
    out.push_back(std::move(fact));
  }
  return out;
}

void check_count(const GgufFile& file, const std::string& key, uint64_t found, uint64_t expected,
                 const std::string& what) {
  check_file(file, found == expected, key, " has ", found, " elements; expected ", what, ", ", expected);
}

}  // namespace ke
