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

// Calls f(slot, task) for every task in [0, n). f must not throw.
// Each slot works through a stretch of consecutive tasks, `grain` at a time, so that it reads weights as one stream;
// a slot that is done goes on with what is left of the others' stretches.
template <class F>
void run_tasks(ThreadPool& pool, int64_t n, int64_t grain, const F& f) {
  constexpr int kStretches = 64;  // more slots than that share one
  struct alignas(64) Stretch {
    std::atomic<int64_t> next;
    int64_t end;
  };
  struct Job {
    const F& f;
    int64_t grain;
    int count;
    Stretch stretches[kStretches];
  };
  if (n <= 0) return;
  const int slots = task_slots(pool, n, grain);
  if (slots == 1) {
    for (int64_t i = 0; i < n; ++i) f(0, i);
    return;
  }
  Job job{f, std::max<int64_t>(grain, 1), std::min(slots, kStretches), {}};
  for (int s = 0; s < job.count; ++s) {
    job.stretches[s].next.store(n * s / job.count, std::memory_order_relaxed);
    job.stretches[s].end = n * (s + 1) / job.count;
  }
  // One reference is captured, so that the std::function allocates nothing.
  pool.parallel_for(slots, 1, [&job](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot)
      for (int s = 0; s < job.count; ++s) {
        Stretch& own = job.stretches[(slot + s) % job.count];
        for (int64_t t; (t = own.next.fetch_add(job.grain, std::memory_order_relaxed)) < own.end;)
          for (int64_t i = t; i < std::min(own.end, t + job.grain); ++i) job.f(static_cast<int>(slot), i);
      }
  });
}

}  // namespace ke::cpu
