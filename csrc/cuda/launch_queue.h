// Launches are put off until something waits for them, so that a pass of the model is known as a whole: one that comes
// again with the same launches, on the same memory, becomes a CUDA graph and is then started by one call. A decoded
// token is such a pass: what differs from token to token (activations, positions) lies in memory that is written
// before.
//
// Operations say nothing of a launch that fails later, so a failure would leave every caller whose launches are dropped
// with old values. The queue therefore stays failed: each call after it throws what failed first, until the backend is
// made anew. What can go on without a graph goes on without one.
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

  // what: for people. key: all that the launch depends on, but for the contents of memory; the same key must mean the
  // same launch.
  void add(const char* what, const Key& key, std::function<cudaError_t(cudaStream_t)> launch);
  // Puts everything on the stream, in order. What fails is thrown, here and from then on.
  void flush();
  // Drops everything, for this reason; see above.
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
  put(k, c.heads), put(k, c.head_dim), put(k, c.group), put(k, int64_t{c.layer}), put(k, int64_t{c.half});
}
inline void put(Key& k, const RopeTable& r) { put(k, r.table), put(k, r.dims), put(k, int64_t{r.interleaved}); }
template <class... T>
Key key_of(const T&... values) {
  Key k;
  (put(k, values), ...);
  return k;
}

}  // namespace ke::cuda
