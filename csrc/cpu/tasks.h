// Runs numbered tasks on a thread pool; each running thread has a slot number, for scratch memory of its own.
#pragma once
#include <algorithm>
#include <atomic>

#include "base/thread_pool.h"

namespace ke::cpu {

// Slots that run_tasks will use for n tasks: scratch is needed for this many.
inline int task_slots(const ThreadPool& pool, int64_t n, int64_t grain) {
  return static_cast<int>(std::min<int64_t>(pool.threads(), (n + grain - 1) / std::max<int64_t>(grain, 1)));
}

// Calls f(slot, task) for every task in [0, n), `grain` consecutive ones at a time. f must not throw.
template <class F>
void run_tasks(ThreadPool& pool, int64_t n, int64_t grain, const F& f) {
  struct Job {
    const F& f;
    int64_t n, grain;
    std::atomic<int64_t> next{0};
  } job{f, n, std::max<int64_t>(grain, 1)};
  // One reference is captured, so that the std::function allocates nothing.
  pool.parallel_for(task_slots(pool, n, job.grain), 1, [&job](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot)
      for (int64_t t; (t = job.next.fetch_add(job.grain, std::memory_order_relaxed)) < job.n;)
        for (int64_t i = t; i < std::min(job.n, t + job.grain); ++i) job.f(static_cast<int>(slot), i);
  });
}

}  // namespace ke::cpu
