// What every function of the C interface is made of: the boundary that no exception crosses, sized structs, text.
#pragma once
#include <cstddef>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "capi/handles.h"
#include <kosmos.h>

namespace ke::capi {

// An error that has a status of the C interface but no ErrorCode.
struct StatusError : std::exception {
  StatusError(kosmos_status s, const char* m) : status(s), message(m) {}
  const char* what() const noexcept override { return message; }
  kosmos_status status;
  const char* message;
};

// Stores an error object where error is not NULL; returns the status.
kosmos_status report(kosmos_error** error, kosmos_status status, const char* message) noexcept;
kosmos_status status_of(ErrorCode code) noexcept;

// body() with every exception turned into a status.
template <class Body>
kosmos_status guarded(kosmos_error** error, Body&& body) noexcept {
  try {
    if (error) *error = nullptr;
    body();
    return KOSMOS_OK;
  } catch (const Error& e) {
    return report(error, status_of(e.code()), e.what());
  } catch (const StatusError& e) {
    return report(error, e.status, e.what());
  } catch (const std::bad_alloc&) {
    return report(error, KOSMOS_ERROR_OUT_OF_MEMORY, "not enough memory for this request");
  } catch (const std::exception& e) {
    return report(error, KOSMOS_ERROR_INTERNAL, e.what());
  } catch (...) {
    return report(error, KOSMOS_ERROR_INTERNAL, "something that is no error of this library was thrown");
  }
}

// The same for functions that make an object: body returns its handle; *out is NULL when it did not get there.
template <class Handle, class Body>
kosmos_status guarded_new(Handle** out, kosmos_error** error, const char* name, Body&& body) noexcept {
  if (out) *out = nullptr;
  return guarded(error, [&] {
    KE_CHECK(out != nullptr, InvalidRequest, name, ": expected a place for the new object, got NULL");
    *out = static_cast<Handle*>(body());
  });
}

// Sized structs, after the rules in kosmos.h.
inline void check_struct_size(size_t size, const char* name) {
  KE_CHECK(size >= sizeof(size_t) && size <= 4096 && size % sizeof(void*) == 0, InvalidRequest, name,
           ".struct_size: expected a multiple of ", sizeof(void*), " in ", sizeof(size_t), "..4096, got ", size,
           " (KOSMOS_INIT sets it)");
}

// A copy of what the caller gave; NULL and fields that the caller does not know are 0.
template <class T>
T read_struct(const T* given, const char* name) {
  static_assert(std::is_trivially_copyable_v<T> && offsetof(T, struct_size) == 0);
  T out{};
  out.struct_size = sizeof(T);
  if (given == nullptr) return out;
  const size_t size = given->struct_size;
  check_struct_size(size, name);
  std::memcpy(&out, given, size < sizeof(T) ? size : sizeof(T));
  const unsigned char* bytes = reinterpret_cast<const unsigned char*>(given);
  for (size_t i = sizeof(T); i < size; i++)
    KE_CHECK(bytes[i] == 0, InvalidRequest, name,
             ": a field is set that this library (version " KOSMOS_VERSION ") does not know, at byte ", i, " of ",
             size);
  return out;
}

template <class T>
T required_struct(const T* given, const char* name) {
  KE_CHECK(given != nullptr, InvalidRequest, name, ": expected a struct, got NULL");
  return read_struct(given, name);
}

// An array of such structs, all of the first one's struct_size, which is also the distance between them.
template <class T>
std::vector<T> read_array(const T* first, size_t count, const std::string& name) {
  std::vector<T> out;
  const char* at = reinterpret_cast<const char*>(first);
  for (size_t i = 0; i < count; i++) {
    const std::string label = concat(name, "[", i, "]");
    const T* given = reinterpret_cast<const T*>(at + i * first->struct_size);
    KE_CHECK(given->struct_size == first->struct_size, InvalidRequest, label, ".struct_size: expected ",
             first->struct_size, " as in the first, got ", given->struct_size);
    out.push_back(read_struct(given, label.c_str()));
  }
  return out;
}

// Fills what the caller knows; what this library does not know becomes 0.
template <class T>
void write_struct(T value, T* out, const char* name) {
  static_assert(std::is_trivially_copyable_v<T> && offsetof(T, struct_size) == 0);
  KE_CHECK(out != nullptr, InvalidRequest, name, ": expected a struct, got NULL");
  const size_t size = out->struct_size;
  check_struct_size(size, name);
  value.struct_size = size;
  std::memcpy(out, &value, size < sizeof(T) ? size : sizeof(T));
  if (size > sizeof(T)) std::memset(reinterpret_cast<unsigned char*>(out) + sizeof(T), 0, size - sizeof(T));
}

// The object of a handle, or InvalidRequest.
template <class Object>
std::shared_ptr<Object> object_of(const void* handle, const char* name) {
  std::shared_ptr<void> found = find_handle(handle, Object::kind);
  KE_CHECK(found, InvalidRequest, name,
           handle ? ": not a live handle (freed, of another type, or never one)" : ": expected a handle, got NULL");
  return std::static_pointer_cast<Object>(std::move(found));
}

// KOSMOS_DEFAULT, KOSMOS_ON or KOSMOS_OFF, else InvalidRequest.
inline bool switched(const char* name, int32_t value, bool by_default) {
  KE_CHECK(value >= -1 && value <= 1, InvalidRequest, name, ": expected KOSMOS_ON, KOSMOS_OFF or 0, got ", value);
  return value == 0 ? by_default : value == 1;
}

// The text with every ill-formed byte replaced by U+FFFD.
std::string well_formed(std::string_view text);

}  // namespace ke::capi
