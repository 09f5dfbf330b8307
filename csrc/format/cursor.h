// Reads untrusted little-endian bytes: every read is checked against the remaining bytes, every sum and product against
// overflow. All arithmetic on numbers from a file goes through here.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "base/error.h"

namespace ke {

static_assert(std::endian::native == std::endian::little,
              "stored values are used in place; this machine is big endian");

// a + b, a * b, and a rounded up to a multiple of the power of two b; false if the result exceeds 64 bits.
inline bool checked_add(uint64_t a, uint64_t b, uint64_t* out) { return !__builtin_add_overflow(a, b, out); }
inline bool checked_mul(uint64_t a, uint64_t b, uint64_t* out) { return !__builtin_mul_overflow(a, b, out); }
inline bool checked_pad(uint64_t a, uint64_t b, uint64_t* out) {
  if (!checked_add(a, b - 1, out)) return false;
  *out &= ~(b - 1);
  return true;
}

class Cursor {
 public:
  // bytes: the readable bytes. limit_reason: follows the file's name in the error when they run out.
  Cursor(std::span<const uint8_t> bytes, std::string_view file, std::string_view limit_reason)
      : bytes_(bytes), file_(file), limit_reason_(limit_reason) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }

  // The next count bytes; `what` names them in an error.
  const uint8_t* take(uint64_t count, std::string_view what) {
    KE_CHECK(count <= remaining(), ModelCorrupt, file_, ": ", what, " at byte ", position_, " needs ", count,
             " bytes, ", remaining(), " remain: ", limit_reason_);
    const uint8_t* p = bytes_.data() + position_;
    position_ += count;
    return p;
  }

  // count elements of size bytes each.
  const uint8_t* take_array(uint64_t count, uint64_t size, std::string_view what) {
    uint64_t total = 0;
    KE_CHECK(checked_mul(count, size, &total), ModelCorrupt, file_, ": ", what, " at byte ", position_, " has ", count,
             " elements of ", size, " bytes: more than any file holds");
    return take(total, what);
  }

  template <class T>
  T read(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what), sizeof(T));
    return value;
  }

  // A string with a 64-bit length prefix, of at most max bytes.
  std::string_view text(uint64_t max, std::string_view what) {
    const uint64_t at = position_;
    const uint64_t length = read<uint64_t>(what);
    KE_CHECK(length <= max, ModelCorrupt, file_, ": ", what, " at byte ", at, " is ", length, " bytes long; at most ",
             max, " are accepted");
    return {reinterpret_cast<const char*>(take(length, what)), static_cast<size_t>(length)};
  }

 private:
  std::span<const uint8_t> bytes_;
  uint64_t position_ = 0;
  std::string_view file_, limit_reason_;
};

}  // namespace ke
