// Runs numbered tasks on a thread pool; each running thread is a numbered worker, so that it can have its own scratch.
#pragma once
#include <algorithm>
#include <atomic>

#include "base/thread_pool.h"

namespace ke::cpu {

// Workers that run_tasks will use for n tasks: scratch is needed for this many.
inline int task_workers(const ThreadPool& pool, int64_t n, int64_t grain) {
  return static_cast<int>(std::min<int64_t>(pool.threads(), (n + grain - 1) / std::max<int64_t>(grain, 1)));
}

// Calls f(worker, task) for every task in [0, n). f must not throw.
// Each worker works through a range of consecutive tasks, `grain` at a time, so that it reads weights as one stream;
// a worker that is done takes what is left of the others' ranges.
template <class F>
void run_tasks(ThreadPool& pool, int64_t n, int64_t grain, const F& f) {
  constexpr int kMaxRanges = 64;  // more workers than that share one
  struct alignas(64) Range {
    std::atomic<int64_t> next;
    int64_t end;
  };
  struct Job {
    const F& f;
    int64_t grain;
    int count;
    Range ranges[kMaxRanges];
  };
  if (n <= 0) return;
  const int workers = task_workers(pool, n, grain);
  if (workers == 1) {
    for (int64_t i = 0; i < n; ++i) f(0, i);
    return;
  }
  Job job{f, std::max<int64_t>(grain, 1), std::min(workers, kMaxRanges), {}};
  for (int s = 0; s < job.count; ++s) {
    job.ranges[s].next.store(n * s / job.count, std::memory_order_relaxed);
    job.ranges[s].end = n * (s + 1) / job.count;
  }
  // One reference is captured, so that the std::function allocates nothing.
  pool.parallel_for(workers, 1, [&job](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker)
      for (int s = 0; s < job.count; ++s) {
        Range& range = job.ranges[(worker + s) % job.count];
        for (int64_t t; (t = range.next.fetch_add(job.grain, std::memory_order_relaxed)) < range.end;)
          for (int64_t i = t; i < std::min(range.end, t + job.grain); ++i) job.f(static_cast<int>(worker), i);
      }
  });
}

}  // namespace ke::cpu
