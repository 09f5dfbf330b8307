// Error objects, status names, versions.
#include "capi/objects.h"
#include "text/utf8.h"

namespace ke::capi {
namespace {

// For when there is no memory for an error object: a handle that is in no table.
kosmos_error* const kNoMemory = reinterpret_cast<kosmos_error*>(uintptr_t{2});
constexpr const char* kNoMemoryMessage = "not enough memory, not even for an error message";

struct StatusName {
  kosmos_status status;
  const char* name;
};
#define KE_STATUS(name) \
  StatusName { name, #name }
constexpr StatusName kStatusNames[] = {KE_STATUS(KOSMOS_OK),
                                       KE_STATUS(KOSMOS_ERROR_INVALID_REQUEST),
                                       KE_STATUS(KOSMOS_ERROR_MODEL_NOT_FOUND),
                                       KE_STATUS(KOSMOS_ERROR_MODEL_CORRUPT),
                                       KE_STATUS(KOSMOS_ERROR_IMAGE),
                                       KE_STATUS(KOSMOS_ERROR_DEVICE_UNAVAILABLE),
                                       KE_STATUS(KOSMOS_ERROR_OUT_OF_MEMORY),
                                       KE_STATUS(KOSMOS_ERROR_CONTEXT_TOO_LONG),
                                       KE_STATUS(KOSMOS_ERROR_CANCELLED),
                                       KE_STATUS(KOSMOS_ERROR_IO),
                                       KE_STATUS(KOSMOS_ERROR_INTERNAL),
                                       KE_STATUS(KOSMOS_ERROR_FORKED)};
#undef KE_STATUS

}  // namespace

std::string well_formed(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8::character_length(text, at);
    out += length > 0 ? text.substr(at, length) : "\xEF\xBF\xBD";
    at += length > 0 ? length : 1;
  }
  return out;
}

kosmos_status report(kosmos_error** error, kosmos_status status, const char* message) noexcept {
  if (error == nullptr) return status;
  try {
    auto object = std::make_shared<ErrorObject>();
    object->status = status;
    object->message = well_formed(message);
    *error = static_cast<kosmos_error*>(insert_handle(Kind::Error, std::move(object)));
  } catch (...) {
    *error = kNoMemory;
    return KOSMOS_ERROR_OUT_OF_MEMORY;
  }
  return status;
}

kosmos_status status_of(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::InvalidRequest:
      return KOSMOS_ERROR_INVALID_REQUEST;
    case ErrorCode::ModelNotFound:
      return KOSMOS_ERROR_MODEL_NOT_FOUND;
    case ErrorCode::ModelCorrupt:
      return KOSMOS_ERROR_MODEL_CORRUPT;
    case ErrorCode::ImageDecode:
      return KOSMOS_ERROR_IMAGE;
    case ErrorCode::DeviceUnavailable:
      return KOSMOS_ERROR_DEVICE_UNAVAILABLE;
    case ErrorCode::OutOfMemory:
      return KOSMOS_ERROR_OUT_OF_MEMORY;
    case ErrorCode::ContextTooLong:
      return KOSMOS_ERROR_CONTEXT_TOO_LONG;
    case ErrorCode::Cancelled:
      return KOSMOS_ERROR_CANCELLED;
    case ErrorCode::Io:
      return KOSMOS_ERROR_IO;
    case ErrorCode::Internal:
      return KOSMOS_ERROR_INTERNAL;
  }
  return KOSMOS_ERROR_INTERNAL;
}

}  // namespace ke::capi

using namespace ke::capi;

const char* kosmos_version(void) noexcept { return KOSMOS_VERSION; }
int32_t kosmos_abi_version(void) noexcept { return KOSMOS_ABI_VERSION; }

const char* kosmos_status_name(kosmos_status status) noexcept {
  for (const StatusName& s : kStatusNames)
    if (s.status == status) return s.name;
  return "unknown status";
}

kosmos_status kosmos_error_code(const kosmos_error* error) noexcept {
  if (error == kNoMemory) return KOSMOS_ERROR_OUT_OF_MEMORY;
  const auto found = std::static_pointer_cast<ErrorObject>(find_handle(error, Kind::Error));
  return found ? found->status : KOSMOS_OK;
}

const char* kosmos_error_message(const kosmos_error* error) noexcept {
  if (error == kNoMemory) return kNoMemoryMessage;
  const auto found = std::static_pointer_cast<ErrorObject>(find_handle(error, Kind::Error));
  return found ? found->message.c_str() : "";
}

void kosmos_error_free(kosmos_error* error) noexcept { take_handle(error, Kind::Error); }
