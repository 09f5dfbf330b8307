// Owned, zero-filled, 64-byte aligned memory; big pieces come from their own mapping, in huge pages where possible.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

namespace ke::cpu {

class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t bytes);  // throws OutOfMemory with the size asked for
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Memory();

  uint8_t* data() const { return data_; }
  size_t size() const { return bytes_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }

 private:
  void swap(Memory& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace ke::cpu
