// The entry of libkosmos_edge_cuda: which devices there are, and a backend on one of them.
#include "backend/device_library.h"
#include "cuda/cuda_backend.h"

namespace ke::cuda {

namespace {

std::string version(int v) { return concat(v / 1000, ".", v % 1000 / 10); }

std::string unavailable() {
  int count = 0, driver = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return "";
  cudaGetLastError();
  if (error == cudaErrorInsufficientDriver) {
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no NVIDIA driver is installed";
#ifdef CUDART_VERSION
    return concat("the NVIDIA driver is too old: it supports CUDA ", version(driver), ", CUDA ",
                  version(CUDART_VERSION / 1000 * 1000), " is needed");
#else
    return concat("the NVIDIA driver is too old: it supports CUDA ", version(driver));
#endif
  }
  if (error == cudaErrorNoDevice || error == cudaSuccess) return "there is no NVIDIA device";
  return concat("the NVIDIA driver reports: ", cudaGetErrorString(error));
}

Backend* make(int index) {
  int count = 0;
  check(cudaGetDeviceCount(&count), "count the devices");
  KE_CHECK(index < count, DeviceUnavailable, "there is no device cuda:", index, ": this machine has ", count);
  return new CudaBackend(index);
}

constexpr DeviceLibrary kLibrary = {kDeviceInterface, KE_DEVICE_COMPILER, unavailable, make};

}  // namespace

}  // namespace ke::cuda

extern "C" __attribute__((visibility("default"))) const ke::DeviceLibrary* kosmos_edge_device_library() {
  return &ke::cuda::kLibrary;
}
