// ke::Error -> the class of kosmos_edge.errors that belongs to its code.
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
      PyErr_SetString(type.ptr(), e.what());
    } catch (const std::bad_alloc&) {
      nb::object type = nb::module_::import_("kosmos_edge.errors").attr("OutOfMemory");
      PyErr_SetString(type.ptr(), "not enough memory for this request");
    }
  });
}

}  // namespace ke
