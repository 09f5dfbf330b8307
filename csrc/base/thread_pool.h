// A small pool of worker threads: parallel_for splits an index range over them.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

namespace ke {

// The useful number of threads: the affinity mask and the cgroup quota (rounded down), at least 1;
// OMP_NUM_THREADS lowers or raises it when it is a positive integer.
int default_thread_count();

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // threads >= 1, the caller's thread counts as one; 1 starts none
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  // Calls body(begin, end) for disjoint ranges that cover [0, n), all but the last a multiple of grain long.
  // Returns when all are done. May be called from several threads at once (jobs run one at a time).
  // body must not throw and must not call parallel_for.
  void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ke
