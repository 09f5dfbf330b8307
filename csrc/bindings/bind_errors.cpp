// ke::Error -> the class of kosmos_edge.errors that belongs to its code.
#include <cstring>

#include "bindings/bind_common.h"

namespace ke {

static const char* class_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::InvalidRequest:
      return "InvalidRequest";
    case ErrorCode::ModelNotFound:
      return "ModelNotFound";
    case ErrorCode::ModelCorrupt:
      return "ModelCorrupt";
    case ErrorCode::ImageDecode:
      return "ImageDecodeError";
    case ErrorCode::DeviceUnavailable:
      return "DeviceUnavailable";
    case ErrorCode::OutOfMemory:
      return "OutOfMemory";
    case ErrorCode::ContextTooLong:
      return "ContextTooLong";
    case ErrorCode::Cancelled:
      return "Cancelled";
    case ErrorCode::Io:
      return "KosmosIOError";
    case ErrorCode::Internal:
      return "KosmosError";
  }
  return "KosmosError";
}

void bind_errors(nb::module_&) {
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const Error& e) {
      nb::object type = nb::module_::import_("kosmos_edge.errors").attr(class_name(e.code()));
      // A message may quote bytes of a file or a path that are no UTF-8.
      nb::object text = nb::steal(PyUnicode_DecodeUTF8(e.what(), static_cast<Py_ssize_t>(strlen(e.what())), "replace"));
      PyErr_SetObject(type.ptr(), text.ptr());
    } catch (const std::bad_alloc&) {
      nb::object type = nb::module_::import_("kosmos_edge.errors").attr("OutOfMemory");
      PyErr_SetString(type.ptr(), "not enough memory for this request");
    }
  });
}

}  // namespace ke
