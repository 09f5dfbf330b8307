// The codec for Python: what the converter and the tests need.
#include <algorithm>

#include "bindings/bind_common.h"
#include "format/utf8.h"
#include "quant/codec.h"

namespace ke {

static DType dtype_of(std::string_view name) {
  const DTypeInfo* info = find_dtype(name);
  if (info) return info->dtype;
  std::string known;
  for (const DTypeInfo& d : all_dtypes()) known += concat(known.empty() ? "" : ", ", d.name);
  fail(ErrorCode::InvalidRequest, "unknown dtype ", quoted(name), "; known are ", known);
}

// A new bytes object of n bytes, filled by fill(data) without the GIL.
template <class Fill>
static nb::bytes filled_bytes(uint64_t n, const Fill& fill) {
  PyObject* object = n <= PY_SSIZE_T_MAX ? PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(n)) : nullptr;
  if (!object) {
    PyErr_Clear();
    throw std::bad_alloc();
  }
  nb::bytes out = nb::steal<nb::bytes>(object);
  char* data = PyBytes_AsString(object);
  nb::gil_scoped_release release;
  fill(reinterpret_cast<uint8_t*>(data));
  return out;
}

static nb::bytes quantize(std::string_view dtype_name, const BufferArg& data, std::string_view source_name,
                          int64_t row_length, const BufferArg& importance) {
  const DType dtype = dtype_of(dtype_name), source = dtype_of(source_name);
  KE_CHECK(source == DType::F32 || source == DType::F16 || source == DType::BF16, InvalidRequest, "source is ",
           dtype_info(source).name, "; expected F32, F16 or BF16");
  const BufferView view(data);
  const std::span<const uint8_t> in = view.bytes();
  const size_t width = dtype_info(source).block_bytes;
  KE_CHECK(in.size() % width == 0, InvalidRequest, "data has ", in.size(), " bytes; expected a multiple of ", width);
  const int64_t count = static_cast<int64_t>(in.size() / width);
  KE_CHECK(row_length >= 0, InvalidRequest, "row_length is ", row_length, "; expected 0 (one row) or more");
  const int64_t row = row_length == 0 ? count : row_length;
  const DTypeInfo& info = dtype_info(dtype);
  KE_CHECK(count == 0 || count % row == 0, InvalidRequest, "data has ", count,
           " values; expected a multiple of row_length, ", row);
  KE_CHECK(row % info.block_elems == 0, InvalidRequest, "rows have ", row, " values; ", info.name,
           " needs a multiple of ", info.block_elems);
  std::vector<float> weights;
  if (!importance.is_none()) {
    const BufferView weight_view(importance);
    const std::span<const uint8_t> bytes = weight_view.bytes();
    KE_CHECK(bytes.size() == static_cast<size_t>(row) * 4, InvalidRequest, "importance has ", bytes.size(),
             " bytes; expected float32 for each of the ", row, " values of a row");
    weights.resize(static_cast<size_t>(row));
    decode(DType::F32, bytes.data(), weights.data(), row);
  }
  return filled_bytes(dtype_bytes(dtype, count), [&](uint8_t* out) {
    // Few values at a time, to stay in the cache: without importance it does not matter where a row ends.
    const bool by_rows = !weights.empty();
    constexpr int64_t target = 1 << 14;  // a multiple of every block
    const int64_t chunk = by_rows ? std::max<int64_t>(1, target / row) * row : target;
    std::vector<float> values(static_cast<size_t>(std::min(count, chunk)));
    for (int64_t begin = 0; begin < count; begin += chunk) {
      const int64_t n = std::min(count - begin, chunk);
      decode(source, in.data() + static_cast<size_t>(begin) * width, values.data(), n);
      encode(dtype, values.data(), out + dtype_bytes(dtype, begin), n, by_rows ? row : n,
             by_rows ? weights.data() : nullptr, begin);
    }
  });
}

static nb::bytes dequantize(std::string_view dtype_name, const BufferArg& data, int64_t count) {
  const DType dtype = dtype_of(dtype_name);
  const DTypeInfo& info = dtype_info(dtype);
  const BufferView view(data);
  const std::span<const uint8_t> in = view.bytes();
  KE_CHECK(count >= 0 && count % info.block_elems == 0, InvalidRequest, "count is ", count, "; ", info.name,
           " needs a multiple of ", info.block_elems, ", at least 0");
  KE_CHECK(in.size() % info.block_bytes == 0 &&
               in.size() / info.block_bytes == static_cast<size_t>(count) / info.block_elems,
           InvalidRequest, "data has ", in.size(), " bytes; expected ", info.block_bytes, " bytes for every ",
           info.block_elems, " of ", count, " values");
  return filled_bytes(static_cast<uint64_t>(count) * 4,
                      [&](uint8_t* out) { decode(dtype, in.data(), reinterpret_cast<float*>(out), count); });
}

static nb::typed<nb::dict, std::string, std::tuple<int, int, int>> dtypes() {
  nb::dict out;
  for (const DTypeInfo& d : all_dtypes())
    out[d.name] = nb::make_tuple(static_cast<uint32_t>(d.dtype), d.block_elems, d.block_bytes);
  return out;
}

void bind_codec(nb::module_& m) {
  m.def(
      "quantize", &quantize, nb::arg("dtype"), nb::arg("data"), nb::arg("source") = "F32", nb::arg("row_length") = 0,
      nb::arg("importance") = nb::none(),
      "Encode little-endian F32, F16 or BF16 values as blocks of dtype. row_length 0 means one row. importance: a\n"
      "float32 weight of the squared error for each value of a row (all rows alike), or None for the default.\n"
      "InvalidRequest for an unknown dtype, a row that is no whole number of blocks, a value that is NaN, infinite or\n"
      "too large (with its index), weights outside 0..1e30.");
  m.def("dequantize", &dequantize, nb::arg("dtype"), nb::arg("data"), nb::arg("count"),
        "Decode count values from blocks of dtype into little-endian float32 bytes.");
  m.def("dtypes", &dtypes, "name -> (GGUF type id, values per block, bytes per block)");
}

}  // namespace ke
