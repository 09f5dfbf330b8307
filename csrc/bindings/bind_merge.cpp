// Tensors that are published as changes of others, for the converter. The GIL is released while they are computed.
#include <cstring>
#include <initializer_list>

#include "bindings/bind_common.h"
#include "quant/merge.h"

namespace ke {
namespace {

std::vector<float> floats_of(const BufferArg& data, const char* name, int64_t count) {
  const BufferView view(data);
  const std::span<const uint8_t> bytes = view.bytes();
  KE_CHECK(count >= 0 && bytes.size() == static_cast<size_t>(count) * sizeof(float), InvalidRequest, name, " has ",
           bytes.size(), " bytes; expected ", count, " float32 values");
  std::vector<float> out(static_cast<size_t>(count));
  if (count > 0) std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

nb::bytes bytes_of(const std::vector<float>& values) { return nb::bytes(values.data(), values.size() * sizeof(float)); }

void check_sizes(std::initializer_list<int64_t> sizes) {
  for (const int64_t size : sizes)
    KE_CHECK(size >= 1 && size <= 1 << 20, InvalidRequest, "expected sizes of 1..", 1 << 20, ", got ", size);
}

nb::bytes low_rank(const BufferArg& weights, const BufferArg& b, const BufferArg& a, int64_t cols, int64_t rank,
                   float scale) {
  check_sizes({cols, rank});
  const int64_t rows = static_cast<int64_t>(BufferView(weights).bytes().size() / sizeof(float)) / cols;
  std::vector<float> out = floats_of(weights, "weights", rows * cols);
  const std::vector<float> left = floats_of(b, "b", rows * rank), right = floats_of(a, "a", rank * cols);
  {
    nb::gil_scoped_release release;
    add_low_rank(out.data(), left.data(), right.data(), rows, cols, rank, scale);
  }
  return bytes_of(out);
}

nb::bytes resized(const BufferArg& grid, int64_t from, int64_t to, int64_t width) {
  check_sizes({from, to, width});
  const std::vector<float> in = floats_of(grid, "grid", from * from * width);
  std::vector<float> out(static_cast<size_t>(to * to * width));
  {
    nb::gil_scoped_release release;
    resize_grid(in.data(), out.data(), from, to, width);
  }
  return bytes_of(out);
}

nb::bytes added(const BufferArg& a, const BufferArg& b) {
  const int64_t count = static_cast<int64_t>(BufferView(a).bytes().size() / sizeof(float));
  std::vector<float> out = floats_of(a, "a", count);
  const std::vector<float> other = floats_of(b, "b", count);
  for (size_t i = 0; i < out.size(); i++) out[i] += other[i];
  return bytes_of(out);
}

}  // namespace

void bind_merge(nb::module_& m) {
  m.def("add_low_rank", &low_rank, nb::arg("weights"), nb::arg("b"), nb::arg("a"), nb::arg("cols"), nb::arg("rank"),
        nb::arg("scale"),
        "weights (rows, cols) + scale * b (rows, rank) a (rank, cols), all float32 bytes. Raises InvalidRequest where\n"
        "sizes do not fit.");
  m.def("resize_grid", &resized, nb::arg("grid"), nb::arg("size"), nb::arg("new_size"), nb::arg("width"),
        "A square grid of vectors (size, size, width), float32 bytes, as one of another size, by torch's bicubic\n"
        "interpolation. Raises InvalidRequest.");
  m.def("add_floats", &added, nb::arg("a"), nb::arg("b"), "a + b, float32 bytes. Raises InvalidRequest.");
}

}  // namespace ke
