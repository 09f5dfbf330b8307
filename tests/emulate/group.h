// Runs a grid of device threads on the processor: groups one after another, the threads of a group as fibers that a
// seed schedules. Knows nothing of CUDA or Metal: a language's header maps its barriers, exchanges and shared memory to
// these functions.
//
// What it finds: threads that do not meet at the same barrier or exchange (Fault), exchanges with lanes that are not
// there (Fault), reads of shared memory that nobody wrote (filled with ones: NaN, -1); with ASan accesses outside
// shared objects; with TSan accesses that no barrier orders, in shared and global memory, whatever the schedule was.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace ke::emulate {

constexpr unsigned kSubgroup = 32;      // lanes that exchange values: a warp, a simdgroup
constexpr unsigned kMaxThreads = 1024;  // of a group

// The program under emulation broke a rule of its language.
class Fault : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Grid {
  unsigned groups;
  unsigned threads;             // per group
  size_t dynamic_shared = 0;    // bytes
  size_t shared_limit = 48384;  // bytes of shared memory a group may have
  uint64_t seed = 0;            // 0: groups and threads in order; else both are shuffled
};

// Runs body(argument) in every thread of the grid and returns when all have ended. Throws Fault.
void run_grid(const Grid& grid, void (*body)(void*), void* argument);

// The rest is for bodies.
unsigned group_index();
unsigned thread_index();  // in the group

// All threads of the group that have not ended must come; none may have ended.
void group_barrier();
// All lanes of `mask` in the subgroup must come.
void subgroup_barrier(uint32_t mask);
// Every lane of `mask` gives `bytes` (a multiple of 4) of a value and gets those of all lanes: lane i's at the result +
// i * bytes, to be read before the next exchange. The result is `out` (32 values) or a copy that the whole subgroup
// shares. `operation` tells one kind of exchange from another: all lanes must name the same. Orders no other memory.
const void* exchange(int operation, uint32_t mask, const void* value, size_t bytes, void* out);

// Shared memory of the group: one object per key, the same for all threads; the dynamic part.
void* shared_object(const void* key, size_t bytes, size_t alignment);
void* dynamic_shared();

[[noreturn]] void fault(const char* what);

}  // namespace ke::emulate
