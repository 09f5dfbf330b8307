// Calibration for Python: what matrices were multiplied with, and rounding that makes use of it.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/set.h>
#include <nanobind/stl/shared_ptr.h>

#include "backend/recorder.h"
#include "bindings/bind_common.h"
#include "quant/codec.h"
#include "quant/feedback.h"
#include "quant/grid.h"

namespace ke {

template <class Values>
static nb::bytes bytes_of(const Values& v) {
  return nb::bytes(v.data(), v.size() * sizeof(*v.data()));
}

static DType dtype_named(std::string_view name) {
  const DTypeInfo* info = find_dtype(name);
  KE_CHECK(info, InvalidRequest, "unknown dtype ", std::string(name));
  return info->dtype;
}

// n float32 values; empty for None.
static std::vector<float> floats_of(const BufferArg& data, const char* what, int64_t n) {
  if (data.is_none()) return {};
  const BufferView view(data);
  KE_CHECK(view.bytes().size() == static_cast<size_t>(n) * 4, InvalidRequest, what, " has ", view.bytes().size(),
           " bytes; expected float32 for each of the ", n, " values of a row");
  std::vector<float> out(static_cast<size_t>(n));
  decode(DType::F32, view.bytes().data(), out.data(), n);
  return out;
}

// Relative to the largest, none 0, so that a block of unused columns has a best code, too.
static void fit_importance(std::vector<float>& importance) {
  float largest = 0;
  for (const float w : importance) {
    KE_CHECK(w >= 0 && w <= 1e30f, InvalidRequest, "an importance is ", w, "; expected 0..1e30");
    largest = std::max(largest, w);
  }
  KE_CHECK(importance.empty() || largest >= 1e-30f, InvalidRequest, "the largest importance is ", largest,
           "; expected at least 1e-30");
  for (float& w : importance) w = std::max(w / largest, 1e-6f);
}

static std::pair<nb::bytes, nb::bytes> quantize_calibrated(std::string_view dtype_name, const BufferArg& data,
                                                           int64_t row, const BufferArg& importance,
                                                           const FeedbackFactor* factor, const BufferArg& mean) {
  const DType dtype = dtype_named(dtype_name);
  KE_CHECK(row > 0, InvalidRequest, "row_length is ", row, "; expected 1 or more");
  std::vector<float> weights = floats_of(importance, "importance", row), means = floats_of(mean, "mean", row);
  fit_importance(weights);
  const BufferView view(data);
  KE_CHECK(view.bytes().size() % (static_cast<size_t>(row) * 4) == 0, InvalidRequest, "data has ", view.bytes().size(),
           " bytes; expected float32 rows of ", row, " values");
  const int64_t n = static_cast<int64_t>(view.bytes().size() / 4), rows = n / row;
  std::vector<uint8_t> out(n > 0 ? dtype_bytes(dtype, n) : 0);
  std::vector<float> correction(static_cast<size_t>(means.empty() ? 0 : rows));
  {
    nb::gil_scoped_release release;
    std::vector<float> values(static_cast<size_t>(n));
    decode(DType::F32, view.bytes().data(), values.data(), n);
    const float* used = weights.empty() ? nullptr : weights.data();
    if (factor && has_grid(dtype))
      encode_with_feedback(dtype, values.data(), out.data(), n, row, used, *factor);
    else
      encode(dtype, values.data(), out.data(), n, row, used);
    std::vector<float> stored(static_cast<size_t>(row));
    for (size_t r = 0; r < correction.size(); ++r) {
      decode(dtype, out.data() + dtype_bytes(dtype, static_cast<int64_t>(r) * row), stored.data(), row);
      double sum = 0;
      for (int64_t i = 0; i < row; ++i)
        sum += (static_cast<double>(values[r * row + i]) - static_cast<double>(stored[i])) * means[i];
      correction[r] = static_cast<float>(sum);
    }
  }
  return {bytes_of(out), bytes_of(correction)};
}

// -> (sum w (x' - x)^2, sum w x^2) over the rows, w their importance or 1, x' rounded without feedback.
static std::pair<double, double> rounding_error(std::string_view dtype_name, const BufferArg& data, int64_t row,
                                                const BufferArg& importance) {
  const DType dtype = dtype_named(dtype_name);
  KE_CHECK(row > 0, InvalidRequest, "row_length is ", row, "; expected 1 or more");
  const std::vector<float> weights = floats_of(importance, "importance", row);
  std::vector<float> fitted = weights;
  fit_importance(fitted);
  const BufferView view(data);
  KE_CHECK(view.bytes().size() % (static_cast<size_t>(row) * 4) == 0, InvalidRequest, "data has ", view.bytes().size(),
           " bytes; expected float32 rows of ", row, " values");
  const int64_t n = static_cast<int64_t>(view.bytes().size() / 4);
  double error = 0, energy = 0;
  nb::gil_scoped_release release;
  std::vector<float> values(static_cast<size_t>(row)), stored(static_cast<size_t>(row));
  KE_CHECK(row % dtype_info(dtype).block_elems == 0, InvalidRequest, "rows have ", row, " values; ",
           dtype_info(dtype).name, " needs a multiple of ", dtype_info(dtype).block_elems);
  std::vector<uint8_t> blocks(dtype_bytes(dtype, row));
  for (int64_t begin = 0; begin < n; begin += row) {
    decode(DType::F32, view.bytes().data() + begin * 4, values.data(), row);
    encode(dtype, values.data(), blocks.data(), row, row, fitted.empty() ? nullptr : fitted.data(), begin);
    decode(dtype, blocks.data(), stored.data(), row);
    for (int64_t i = 0; i < row; ++i) {
      const double w = weights.empty() ? 1.0 : weights[i], x = values[i], d = stored[i] - x;
      error += w * d * d;
      energy += w * x * x;
    }
  }
  return {error, energy};
}

static nb::bytes multiply_columns(const BufferArg& data, const BufferArg& factors) {
  const BufferView view(data), by(factors);
  const size_t row = by.bytes().size();
  KE_CHECK(row > 0 && row % 4 == 0 && view.bytes().size() % row == 0, InvalidRequest, "data has ", view.bytes().size(),
           " bytes; expected float32 rows of as many values as the factors, which have ", row, " bytes");
  std::vector<float> columns(row / 4), values(view.bytes().size() / 4);
  decode(DType::F32, by.bytes().data(), columns.data(), static_cast<int64_t>(columns.size()));
  {
    nb::gil_scoped_release release;
    decode(DType::F32, view.bytes().data(), values.data(), static_cast<int64_t>(values.size()));
    for (size_t i = 0; i < values.size(); i += columns.size())
      for (size_t j = 0; j < columns.size(); ++j) values[i + j] *= columns[j];
  }
  return bytes_of(values);
}

void bind_calibration(nb::module_& m) {
  using Sums = ActivationRecorder::Sums;
  nb::class_<Sums>(m, "ActivationSums", "Sums over the inputs x of a matrix, all rows that it was multiplied with.")
      .def_ro("rows", &Sums::rows)
      .def_ro("cols", &Sums::cols)
      .def_prop_ro(
          "sum", [](const Sums& s) { return bytes_of(s.sum); }, "Of x: (cols) float64.")
      .def_prop_ro(
          "squares", [](const Sums& s) { return bytes_of(s.squares); }, "Of x^2: (cols) float64.")
      .def_prop_ro(
          "products", [](const Sums& s) { return bytes_of(s.products); },
          "Of x_i x_j for j <= i: (cols, cols) float32, zeros elsewhere; empty where they were not asked for.");

  nb::class_<ActivationRecorder>(m, "ActivationRecorder", "Told of every product of an Engine; see its recorder.")
      .def(nb::init<std::set<std::string>>(), nb::arg("products_of") = std::set<std::string>{},
           "products_of: tensors whose products are wanted, too: 4 cols^2 bytes each.")
      .def(
          "add",
          [](ActivationRecorder& r, const std::vector<std::string>& names, const BufferArg& x, int64_t cols) {
            const BufferView view(x);
            KE_CHECK(!names.empty() && cols > 0 && view.bytes().size() % (static_cast<size_t>(cols) * 4) == 0,
                     InvalidRequest, "expected names and float32 rows of ", cols, " values");
            std::vector<float> rows(view.bytes().size() / 4);
            decode(DType::F32, view.bytes().data(), rows.data(), static_cast<int64_t>(rows.size()));
            r.add(names, rows.data(), static_cast<int64_t>(rows.size()) / cols, cols);
          },
          nb::arg("names"), nb::arg("x"), nb::arg("cols"), "Rows of inputs, as an Engine adds them.")
      .def("names", &ActivationRecorder::names, "The tensors that were multiplied with something, sorted.")
      .def(
          "find",
          [](const ActivationRecorder& r, const std::string& name) {
            return std::const_pointer_cast<Sums>(r.find(name));
          },
          nb::arg("name"), "ActivationSums of a tensor. Raises InvalidRequest.");

  nb::class_<FeedbackFactor>(m, "FeedbackFactor",
                             "How far the inputs of a matrix go together: for quantize_calibrated.")
      .def(
          "__init__",
          [](FeedbackFactor* self, const Sums& sums, bool centred, double damping) {
            KE_CHECK(!sums.products.empty(), InvalidRequest, "products were not recorded");
            nb::gil_scoped_release release;
            ThreadPool pool(default_thread_count());
            new (self) FeedbackFactor(sums.products.data(), centred ? sums.sum.data() : nullptr, sums.rows, sums.cols,
                                      damping, pool);
          },
          nb::arg("sums"), nb::arg("centred"), nb::arg("damping"),
          "centred: of the inputs less their mean, for a matrix whose bias is corrected. damping: share of their mean\n"
          "square that is added, 1e-6..1. Raises InvalidRequest.")
      .def_prop_ro("size", &FeedbackFactor::size)
      .def_prop_ro(
          "values",
          [](const FeedbackFactor& f) { return nb::bytes(f.row(0), static_cast<size_t>(f.size() * f.size()) * 4); },
          "U, (size, size) float32.");

  m.def(
      "quantize_calibrated", &quantize_calibrated, nb::arg("dtype"), nb::arg("data"), nb::arg("row_length"),
      nb::arg("importance") = nb::none(), nb::arg("factor").none() = nb::none(), nb::arg("mean") = nb::none(),
      "Float32 rows as blocks of dtype, rounded by what they are multiplied with. importance: as in quantize. factor:\n"
      "with error feedback (not for types of one value per block). mean: of the inputs, (row_length) float32.\n"
      "-> (blocks, for each row how much the product with the mean fell short, float32, empty without mean).\n"
      "Raises InvalidRequest.");

  m.def("multiply_columns", &multiply_columns, nb::arg("data"), nb::arg("factors"),
        "Float32 rows, each column times its factor: as many float32 factors as a row has values. -> float32.\n"
        "Raises InvalidRequest.");

  m.def("rounding_error", &rounding_error, nb::arg("dtype"), nb::arg("data"), nb::arg("row_length"),
        nb::arg("importance") = nb::none(),
        "What rounding float32 rows x to dtype costs: (sum w (x' - x)^2, sum w x^2), w the importance (row_length)\n"
        "float32, 0..1e30, or 1 everywhere. Raises InvalidRequest.");
}

}  // namespace ke
