// Launches are deferred until a result is needed, so that a whole forward pass can be captured as one CUDA graph. A
// pass that repeats with the same launches on the same memory becomes a graph and then starts with one call. A decoded
// token is such a pass: what differs between tokens (activations, positions) is in memory that is written before.
//
// An operation cannot report a launch that fails later, so after a failure every caller whose launches were dropped
// would read old values. The queue therefore stays failed: each later call throws the first error, until the backend
// is created again. If a graph cannot be made, the pass runs without one.
#pragma once
#include <bit>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <vector>

#include "cuda/kernels.h"
#include "cuda/memory.h"

namespace ke::cuda {

using Key = std::vector<uint64_t>;

class LaunchQueue {
 public:
  explicit LaunchQueue(cudaStream_t stream) : stream_(stream) {}
  ~LaunchQueue() { forget(); }
  LaunchQueue(const LaunchQueue&) = delete;

  // what: for error messages. key: everything that the launch depends on, except the contents of memory; equal keys
  // must mean equal launches.
  void add(const char* what, const Key& key, std::function<cudaError_t(cudaStream_t)> launch);
  // Launches everything on the stream, in order. Throws the first failure, now and in every later call.
  void flush();
  // Drops all launches for this reason; see above.
  void fail(std::exception_ptr why) noexcept;

 private:
  struct Step {
    const char* what;
    std::function<cudaError_t(cudaStream_t)> launch;
  };
  struct Pass {
    int times = 0;
    cudaGraphExec_t graph = nullptr;
  };
  void start(const std::vector<Step>& steps, Key key);
  void run(const std::vector<Step>& steps);
  // nullptr: there is no memory for a graph, or none can be made.
  cudaGraphExec_t capture(const std::vector<Step>& steps);
  void forget();

  cudaStream_t stream_;
  std::vector<Step> steps_;
  Key key_;
  std::exception_ptr failed_;
  std::map<Key, Pass> passes_;
};

// Values as parts of a key.
inline void put(Key& k, const void* p) { k.push_back(reinterpret_cast<uintptr_t>(p)); }
inline void put(Key& k, int64_t v) { k.push_back(static_cast<uint64_t>(v)); }
inline void put(Key& k, float v) { k.push_back(std::bit_cast<uint32_t>(v)); }
inline void put(Key& k, const Matrix& m) { put(k, m.data), put(k, m.rows), put(k, m.cols), put(k, m.stride); }
inline void put(Key& k, const NormWeights& n) {
  put(k, n.gamma), put(k, n.beta), put(k, n.eps), put(k, int64_t{n.rms});
}
inline void put(Key& k, const Epilogue& e) {
  put(k, e.bias), put(k, e.residual), put(k, e.residual_stride), put(k, e.y), put(k, e.y_stride);
  put(k, static_cast<int64_t>(e.act));
}
inline void put(Key& k, const CacheShape& c) {
  put(k, c.heads), put(k, c.head_dim), put(k, c.group), put(k, int64_t{c.layer}), put(k, static_cast<int64_t>(c.type));
}
inline void put(Key& k, const RopeTable& r) { put(k, r.table), put(k, r.dims), put(k, int64_t{r.interleaved}); }
inline void put(Key& k, const BiasTable& b) { put(k, b.data), put(k, b.stride), put(k, b.zero); }
template <class... T>
Key key_of(const T&... values) {
  Key k;
  (put(k, values), ...);
  return k;
}

}  // namespace ke::cuda
