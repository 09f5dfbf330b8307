// Persistent workers that spin briefly for the next job and then sleep in the kernel.
// A job never waits for a worker that has not started on it: the caller computes, too, takes ranges from the same
// counter, and at the end waits only for workers inside the job. A sleeping, descheduled or (after a fork)
// vanished worker therefore costs speed, never progress.
#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <unistd.h>
#endif

#include "base/cpu_limits.h"
#include "base/error.h"

namespace ke {

int default_thread_count() {
  if (const int omp = omp_num_threads()) return omp;
  const double quota = cgroup_cpu_quota("/proc/self/cgroup", "/sys/fs/cgroup");
  const int cpus = affinity_cpus();
  return quota > 0 ? std::max(1, std::min(cpus, static_cast<int>(quota))) : cpus;
}

namespace {

constexpr auto kSpinTime = std::chrono::microseconds(40);  // longer than the gap between two operations of a layer
constexpr int64_t kRangesPerThread = 4;                    // finer ranges even out threads of unequal speed

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins until ready() or the spin time is over.
template <class Ready>
void spin(const Ready& ready) {
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
}

int process_id() {
#ifdef _WIN32
  return 0;
#else
  return static_cast<int>(getpid());
#endif
}

}  // namespace

struct ThreadPool::State {
  std::vector<std::thread> workers;
  int threads = 1;
  int owner = process_id();
  std::mutex callers;  // held by the caller whose job runs: the others queue here

  // The job. Written by the caller while `open` is false and `inside` is 0.
  const std::function<void(int64_t, int64_t)>* body = nullptr;
  int64_t n = 0, range = 1;

  alignas(64) std::atomic<uint32_t> epoch{0};  // one more for every job; idle workers wait for it to change
  std::atomic<bool> stop{false};
  alignas(64) std::atomic<int64_t> next{0};  // first index not yet taken
  alignas(64) std::atomic<int> inside{0};    // workers that may be reading the job
  std::atomic<bool> open{false};             // workers may enter

  void run_ranges() {
    while (true) {
      const int64_t begin = next.fetch_add(range, std::memory_order_relaxed);
      if (begin >= n) return;
      (*body)(begin, std::min(n, begin + range));
    }
  }

  void finish() {
    stop = true;
    epoch.fetch_add(1);
    epoch.notify_all();
    for (std::thread& t : workers) t.join();
  }

  void work() {
    uint32_t seen = 0;
    while (true) {
      spin([&] { return epoch.load(std::memory_order_acquire) != seen; });
      epoch.wait(seen);
      seen = epoch.load();
      if (stop.load()) return;
      // Either this increment is seen by the caller after it closed the job, or we see it closed (both seq_cst).
      inside.fetch_add(1);
      if (open.load()) run_ranges();
      if (inside.fetch_sub(1) == 1) inside.notify_all();
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  KE_CHECK(threads >= 1 && threads <= 4096, InvalidRequest, "threads must be 1 to 4096, got ", threads);
  state_->threads = threads;
  state_->workers.reserve(threads - 1);
  try {
    for (int i = 1; i < threads; ++i) state_->workers.emplace_back([s = state_.get()] { s->work(); });
  } catch (const std::system_error& e) {
    const size_t started = state_->workers.size();
    state_->finish();
    fail(ErrorCode::OutOfMemory, "the system starts no more than ", started + 1, " of ", threads,
         " threads: ", e.what());
  }
}

ThreadPool::~ThreadPool() {
  State& s = *state_;
  if (s.owner != process_id()) {  // a forked child has the objects but not the threads
    for (std::thread& t : s.workers) t.detach();
    return;
  }
  s.finish();
}

int ThreadPool::threads() const { return state_->threads; }

void ThreadPool::parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (n <= 0) return;
  State& s = *state_;
  grain = std::max<int64_t>(grain, 1);
  if (s.workers.empty() || n <= grain) return body(0, n);

  std::lock_guard lock(s.callers);
  const int64_t grains = (n + grain - 1) / grain;
  s.range = std::max<int64_t>(1, grains / (s.threads * kRangesPerThread)) * grain;
  s.n = n;
  s.body = &body;
  s.next.store(0, std::memory_order_relaxed);
  s.open = true;
  s.epoch.fetch_add(1);
  s.epoch.notify_all();
  s.run_ranges();

  s.open = false;
  spin([&] { return s.inside.load() == 0; });
  for (int left = s.inside.load(); left != 0; left = s.inside.load()) s.inside.wait(left);
}

}  // namespace ke
