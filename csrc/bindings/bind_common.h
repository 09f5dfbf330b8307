// What every binding file needs: nanobind, and a contiguous read-only view of any object with the buffer protocol.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <span>

#include "base/error.h"

namespace nb = nanobind;

namespace ke {

// Python types as the generated stub (kosmos_edge/_core.pyi) names them. Arguments are checked where they are used.
inline bool any_object(PyObject*) { return true; }
class BufferArg : public nb::object {
  NB_OBJECT_DEFAULT(BufferArg, nb::object, "typing_extensions.Buffer", any_object)
};
class TextArg : public nb::object {
  NB_OBJECT_DEFAULT(TextArg, nb::object, "str | bytes", any_object)
};
using TextList = nb::typed<nb::sequence, TextArg>;
using AnyDict = nb::typed<nb::dict, nb::str, nb::any>;

// The bytes of an object with the buffer protocol (or DLPack, on the CPU), kept alive and unchanged in size for the
// view's lifetime. TypeError when there are none or they are not contiguous. Construct and destroy with the GIL.
class BufferView {
 public:
  explicit BufferView(nb::handle object) {
    if (!nb::try_cast(object, array_, false))
      throw nb::type_error("expected an object with the buffer protocol whose bytes are contiguous");
  }
  BufferView(const BufferView&) = delete;
  BufferView& operator=(const BufferView&) = delete;
  std::span<const uint8_t> bytes() const { return {static_cast<const uint8_t*>(array_.data()), array_.nbytes()}; }

 private:
  nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu> array_;
};

// The bytes of a str or bytes object. A str with lone surrogates has no UTF-8: its raw form is handed on, so that the
// tokenizer rejects it with the offset.
inline std::string utf8_of(nb::handle text) {
  nb::object bytes = nb::borrow(text);
  if (!PyBytes_Check(text.ptr())) {
    KE_CHECK(PyUnicode_Check(text.ptr()), InvalidRequest, "text must be str or bytes, not ",
             nb::cast<std::string>(nb::type_name(text.type())));
    bytes = nb::steal(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "surrogatepass"));
    if (!bytes.is_valid()) throw nb::python_error();
  }
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(bytes.ptr(), &data, &size) != 0) throw nb::python_error();
  return {data, static_cast<size_t>(size)};
}

class GgufFile;
// The file's metadata as Python values; arrays of more than skip_longer_than elements are left out.
AnyDict metadata_dict(const GgufFile& file, uint64_t skip_longer_than);
struct ModelInfo;
// What model_info(path) gives.
AnyDict info_dict(const ModelInfo& info);

struct KernelChoice;
using ChoiceList = nb::typed<nb::list, AnyDict>;
ChoiceList choice_list(const std::vector<KernelChoice>& choices);  // as Engine.kernel_choices

enum class Activation;
Activation activation_named(const std::string& name);  // "none", "gelu_erf", "quick_gelu", ...

void bind_errors(nb::module_& m);
void bind_limits(nb::module_& m);
void bind_sharing(nb::module_& m);
void bind_bench(nb::module_& m);
void bind_codec(nb::module_& m);
void bind_merge(nb::module_& m);
void bind_gguf(nb::module_& m);
void bind_text(nb::module_& m);
void bind_image(nb::module_& m);
void bind_ops(nb::module_& m);
void bind_engine(nb::module_& m);
void bind_tasks(nb::module_& m);
void bind_answer(nb::module_& m);
void bind_batch(nb::module_& m);
void bind_calibration(nb::module_& m);
void bind_quality(nb::module_& m);
void bind_testing(nb::module_& m);
void bind_layers(nb::module_& m);
void bind_testing_text(nb::module_& m);
void bind_testing_cross(nb::module_& m);

}  // namespace ke
