// Device memory that frees itself, and the runtime's errors as ours.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/error.h"
#include "cuda/runtime.h"

namespace ke::cuda {

// OutOfMemory where the device has no more; DeviceUnavailable, with the runtime's words, for everything else: a device
// that is lost, reset or too old cannot be used again by this process, the processor can.
inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // so that the next call does not report it again
  const char* words = cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) fail(ErrorCode::OutOfMemory, "not enough memory on the device: ", what);
  fail(ErrorCode::DeviceUnavailable, "the CUDA device failed (", words, ") at: ", what);
}

class DeviceMemory {
 public:
  DeviceMemory() = default;
  explicit DeviceMemory(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    const cudaError_t error = cudaMalloc(&data_, bytes);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      fail(ErrorCode::OutOfMemory, "not enough memory on the device for ", bytes, " bytes");
    }
    check(error, "allocate");
  }
  DeviceMemory(DeviceMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~DeviceMemory() {
    if (data_) cudaFree(data_);  // waits for the work that uses it; after a failure there is nothing left to do
  }
  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace ke::cuda
