// The library's only error type: a code for callers to handle, and a message that says what was expected, what came,
// and where.
#pragma once
#include <exception>
#include <sstream>
#include <string>
#include <utility>

namespace ke {

enum class ErrorCode {
  InvalidRequest,     // the caller's arguments: out of range, wrong type, contradictory
  ModelNotFound,      // no such file
  ModelCorrupt,       // the file is malformed or inconsistent
  ImageDecode,        // the image could not be used
  DeviceUnavailable,  // the requested device or instruction set is not available
  OutOfMemory,
  ContextTooLong,  // prompt + answer exceed the model's context
  Cancelled,
  Io,        // the operating system refused
  Internal,  // our own bug
};

class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  ErrorCode code() const { return code_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorCode code_;
  std::string message_;
};

template <class... Args>
std::string concat(const Args&... args) {
  std::ostringstream out;
  out.exceptions(std::ios::badbit);  // or an allocation failure would silently truncate the message
  (out << ... << args);
  return out.str();
}

template <class... Args>
[[noreturn]] void fail(ErrorCode code, const Args&... args) {
  throw Error(code, concat(args...));
}

}  // namespace ke

// An error of the caller or the file: always checked.
#define KE_CHECK(condition, code, ...)                                \
  do {                                                                \
    if (!(condition)) ::ke::fail(::ke::ErrorCode::code, __VA_ARGS__); \
  } while (0)

// An error of the library: an invariant is broken.
#define KE_ASSERT(condition)                                                                            \
  do {                                                                                                  \
    if (!(condition)) ::ke::fail(::ke::ErrorCode::Internal, __FILE__, ":", __LINE__, ": ", #condition); \
  } while (0)
