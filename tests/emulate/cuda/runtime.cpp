#include "cuda/runtime.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/device.cuh"
#include "emulate/group.h"

struct EmulatedGraph {
  std::vector<std::function<cudaError_t()>> steps;
};
struct EmulatedStream {
  std::unique_ptr<EmulatedGraph> capture;  // what is launched goes here instead
};

namespace {

// The state of the one device, set by the functions at the end of this file.
struct Device {
  std::mutex mutex;
  std::map<void*, size_t> memory;
  size_t in_use = 0, most = 0;
  long allocations = 0, fail_at = -1;  // the allocation that fails
  long calls = 0, fail_call = -1;      // the call that fails
  cudaError_t call_error = cudaSuccess;
  bool call_loses = false;  // the device with it
  int count = 1, driver = 13000, capability = 90;
  cudaError_t missing = cudaSuccess;    // why there is no device
  cudaError_t no_kernel = cudaSuccess;  // why no kernel can be started
  cudaError_t lost = cudaSuccess;       // what every call fails with
  size_t streams = 0, made_graphs = 0;
  bool computes = true;
  uint64_t seed = 0;
  long launches = 0, graphs = 0;
  size_t bytes_read = 0;  // by the host
};

Device& device() {
  static Device* d = new Device;  // never destroyed: memory may be freed after the end of main
  return *d;
}

thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_message;

cudaError_t report(cudaError_t error) { return last_error = error; }
cudaError_t state() { return device().lost ? report(device().lost) : cudaSuccess; }

// At the head of every function that can fail by itself, on a device or without one.
cudaError_t enter_call() {
  Device& d = device();
  std::lock_guard lock(d.mutex);
  if (d.calls++ != d.fail_call) return cudaSuccess;
  if (d.call_loses) d.lost = d.call_error;
  return report(d.call_error);
}
cudaError_t enter() {
  const cudaError_t e = enter_call();
  return e ? e : state();
}

cudaError_t now_or_later(cudaStream_t stream, std::function<cudaError_t()> step) {
  if (const cudaError_t e = enter()) return e;
  if (!stream || !stream->capture) return step();
  stream->capture->steps.push_back(std::move(step));
  return cudaSuccess;
}

void count_read(size_t bytes, cudaMemcpyKind kind) {
  std::lock_guard lock(device().mutex);
  if (kind == cudaMemcpyDeviceToHost) device().bytes_read += bytes;
}

cudaError_t allocate(void** memory, size_t bytes, bool counted) {
  Device& d = device();
  if (const cudaError_t e = enter()) return e;
  std::lock_guard lock(d.mutex);
  if (counted && d.allocations++ == d.fail_at) return report(cudaErrorMemoryAllocation);
  if (posix_memalign(memory, 256, bytes ? bytes : 1)) return report(cudaErrorMemoryAllocation);
  if (d.computes) std::memset(*memory, 0xff, bytes);  // what nobody wrote is NaN
  if (counted) {
    d.memory[*memory] = bytes;
    d.in_use += bytes;
    d.most = std::max(d.most, d.in_use);
  }
  return cudaSuccess;
}

// What a device that computes nothing gives back: words that are small numbers, ids of a token, and true.
bool made_up(void* to, size_t bytes, cudaMemcpyKind kind) {
  if (device().computes || kind != cudaMemcpyDeviceToHost) return false;
  const uint32_t word = 5;
  for (size_t b = 0; b + sizeof word <= bytes; b += sizeof word)
    std::memcpy(static_cast<char*>(to) + b, &word, sizeof word);
  return true;
}

}  // namespace

const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure && !last_message.empty()) return last_message.c_str();
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorDevicesUnavailable:
      return "CUDA-capable device(s) is/are busy or unavailable";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
    case cudaErrorUnsupportedPtxVersion:
      return "the provided PTX was compiled with an unsupported toolchain.";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    default:
      return "unspecified launch failure";
  }
}

cudaError_t cudaGetLastError() {
  const cudaError_t e = last_error;
  last_error = cudaSuccess;
  return e;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (const cudaError_t e = enter_call()) return e;
  if (device().missing) return report(device().missing);
  *count = device().count;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  *p = {};
  if (const cudaError_t e = enter_call()) return e;
  std::strcpy(p->name, "emulated on the processor");
  p->major = device().capability / 10, p->minor = device().capability % 10, p->multiProcessorCount = 4;
  p->totalGlobalMem = size_t{1} << 34;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = device().driver;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) { return enter(); }

cudaError_t cudaMalloc(void** memory, size_t bytes) { return allocate(memory, bytes, true); }
cudaError_t cudaMallocHost(void** memory, size_t bytes) { return allocate(memory, bytes, false); }
cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  if (!memory) return cudaSuccess;
  Device& d = device();
  std::lock_guard lock(d.mutex);
  const auto it = d.memory.find(memory);
  if (it == d.memory.end()) return report(cudaErrorIllegalAddress);
  d.in_use -= it->second;
  d.memory.erase(it);
  std::free(memory);
  return state();
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  count_read(bytes, kind);
  return now_or_later(stream, [=] {
    if (bytes && !made_up(to, bytes, kind)) std::memcpy(to, from, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  count_read(width * height, kind);
  return now_or_later(stream, [=] {
    for (size_t r = 0; r < height; r++) {
      char* row = static_cast<char*>(to) + r * to_pitch;
      if (!made_up(row, width, kind)) std::memcpy(row, static_cast<const char*>(from) + r * from_pitch, width);
    }
    return cudaSuccess;
  });
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  return now_or_later(stream, [=] {
    std::memset(memory, value, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (const cudaError_t e = enter()) return e;
  *stream = new EmulatedStream;
  std::lock_guard lock(device().mutex);
  device().streams++;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  std::lock_guard lock(device().mutex);
  device().streams--;
  return state();
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return enter(); }

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (const cudaError_t e = enter()) return e;
  stream->capture = std::make_unique<EmulatedGraph>();
  return cudaSuccess;
}
// Whatever it returns, the stream records no more.
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  std::unique_ptr<EmulatedGraph> made = std::move(stream->capture);
  if (const cudaError_t e = enter()) return e;
  if (!made) return report(cudaErrorLaunchFailure);
  *graph = made.release();
  std::lock_guard lock(device().mutex);
  device().made_graphs++;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  if (const cudaError_t e = enter()) return e;
  *exec = new EmulatedGraph(*graph);
  std::lock_guard lock(device().mutex);
  device().made_graphs++;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  if (const cudaError_t e = enter()) return e;
  device().graphs++;
  for (const auto& step : exec->steps)
    if (const cudaError_t e = step()) return e;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  std::lock_guard lock(device().mutex);
  device().made_graphs--;
  return state();
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return cudaGraphDestroy(exec); }

namespace ke::cuda {

namespace {
void run_kernel(void* kernel) { (*static_cast<const std::function<void()>*>(kernel))(); }
}  // namespace

cudaError_t emulated_launch(cudaStream_t stream, dim3 grid, unsigned threads, size_t shared,
                            std::function<void()> kernel) {
  if (device().no_kernel) return report(device().no_kernel);
  return now_or_later(stream, [=] {
    Device& d = device();
    uint64_t seed = 0;
    {
      std::lock_guard lock(d.mutex);
      d.launches++;
      if (d.seed) seed = d.seed + static_cast<uint64_t>(d.launches);
    }
    if (!d.computes) return cudaSuccess;
    emulate::Grid g{grid.x * grid.y * grid.z, threads, shared};
    g.shared_limit = size_t{48} << 10;  // what every card gives without asking
    g.seed = seed;
    set_launch(grid, threads);
    std::function<void()> body = kernel;
    try {
      emulate::run_grid(g, run_kernel, &body);
    } catch (const emulate::Fault& f) {
      last_message = f.what();
      d.lost = cudaErrorLaunchFailure;
      return report(cudaErrorLaunchFailure);
    }
    return cudaSuccess;
  });
}

}  // namespace ke::cuda

// For tests, by ctypes or directly.
#define KE_EXPORT extern "C" __attribute__((visibility("default")))

// Allocation number n from now on fails (0: the next); -1: none does.
KE_EXPORT void kosmos_edge_emulated_fail_allocation(long n) {
  std::lock_guard lock(device().mutex);
  device().allocations = 0;
  device().fail_at = n;
}
// Allocations since the last call of the above.
KE_EXPORT long kosmos_edge_emulated_allocations() { return device().allocations; }
// Call number n of the runtime from now on fails with this error (0: the next), and with loses != 0 every call after
// it; -1: none does. Calls that only give something back are not counted: they fail on a lost device only.
KE_EXPORT void kosmos_edge_emulated_fail_call(long n, int error, int loses) {
  std::lock_guard lock(device().mutex);
  device().calls = 0;
  device().fail_call = n;
  device().call_error = static_cast<cudaError_t>(error);
  device().call_loses = loses != 0;
}
// Calls since the last call of the above.
KE_EXPORT long kosmos_edge_emulated_calls() { return device().calls; }
// How many devices there are; with error != 0 none, for that reason.
KE_EXPORT void kosmos_edge_emulated_devices(int count, int error) {
  device().count = count;
  device().missing = static_cast<cudaError_t>(error);
}
// The version of CUDA that the driver supports, as 1000 * major + 10 * minor; 0: there is no driver.
KE_EXPORT void kosmos_edge_emulated_driver(int version) { device().driver = version; }
// Compute capability as 10 * major + minor, and why no kernel can be started (0: they can).
KE_EXPORT void kosmos_edge_emulated_architecture(int capability, int no_kernel) {
  device().capability = capability;
  device().no_kernel = static_cast<cudaError_t>(no_kernel);
}
// As after an illegal access or a reset: every call fails with this error; 0: as before.
KE_EXPORT void kosmos_edge_emulated_lose(int error) { device().lost = static_cast<cudaError_t>(error); }
// 0: launches do nothing and what is read back is made up, for counting what a model of any size asks for.
KE_EXPORT void kosmos_edge_emulated_compute(int compute) { device().computes = compute != 0; }
// Shuffles the blocks and threads of every launch to come; 0: in order.
KE_EXPORT void kosmos_edge_emulated_seed(uint64_t seed) { device().seed = seed; }
KE_EXPORT size_t kosmos_edge_emulated_bytes(int most) { return most ? device().most : device().in_use; }
// Streams and graphs that nobody gave back.
KE_EXPORT size_t kosmos_edge_emulated_handles() { return device().streams + device().made_graphs; }
KE_EXPORT long kosmos_edge_emulated_launches() { return device().launches; }
// Graphs started so far.
KE_EXPORT long kosmos_edge_emulated_graphs() { return device().graphs; }
// Bytes copied from the device to the host so far.
KE_EXPORT size_t kosmos_edge_emulated_bytes_read() { return device().bytes_read; }
