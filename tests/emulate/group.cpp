// For TSan this file and fiber.cpp are compiled without -fsanitize=thread but with -DKE_EMULATE_TSAN: what the
// scheduler does with its own memory is no access of the program under emulation.
#include "emulate/group.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "emulate/fiber.h"

namespace ke::emulate {

namespace {

enum class State : uint8_t { Ready, AtBarrier, AtExchange, Ended };

struct Thread {
  Fiber fiber;
  State state = State::Ready;
  // Of the exchange it waits at:
  int operation = 0;
  uint32_t mask = 0;
  size_t bytes = 0;
  const unsigned char* given = nullptr;
  unsigned char* taken = nullptr;                // where it finds what all gave
  unsigned barriers = 0, subgroup_barriers = 0;  // that it came to
};

constexpr int kBarrierOperation = -1;

struct SharedObject {
  const void* key;
  void* memory;
};

// One per host thread.
struct Runner {
  Fiber main;
  std::vector<std::unique_ptr<Thread>> threads;
  unsigned count = 0, current = 0, group = 0;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  size_t shared_bytes = 0, shared_limit = 0;
  std::vector<SharedObject> shared;
  std::vector<std::vector<unsigned char>> exchanged;  // by subgroup: what all of its lanes gave last, side by side
  std::vector<void*> retired;  // freed when the grid ends: until then no barrier orders the free after the accesses
  void* dynamic = nullptr;
  bool inside = false;  // a thread of the grid runs, not the scheduler
  std::string error;
  uint64_t random = 0;
  // Addresses that release() and acquire() name. A barrier has one of its own: a thread may be at the group's next
  // barrier before another has left this one, and what it did between them is not ordered before the other.
  char grid_begins = 0, grid_ends = 0;
  std::vector<char> barriers;  // [group][even, odd barriers][the group's, subgroups']
  char* barrier(unsigned number, unsigned which) {
    const size_t each = 1 + (count + kSubgroup - 1) / kSubgroup;
    return &barriers[(size_t{group} * 2 + number % 2) * each + which];
  }

  uint64_t next_random() {  // splitmix64
    uint64_t z = (random += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  void shuffle(std::vector<unsigned>& order) {
    for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[next_random() % i]);
  }
};

thread_local Runner* running = nullptr;

// Memory filled with ones; exactly `bytes` long, so that ASan sees its end.
void* make_shared_memory(Runner& r, size_t bytes, size_t alignment) {
  r.shared_bytes += bytes;
  if (r.shared_bytes > r.shared_limit)
    fault(("a group asks for " + std::to_string(r.shared_bytes) + " bytes of shared memory, the limit is " +
           std::to_string(r.shared_limit))
              .c_str());
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment < 16 ? 16 : alignment, bytes ? bytes : 1)) throw std::bad_alloc();
  for (size_t b = 0; b < bytes; b++) static_cast<volatile unsigned char*>(memory)[b] = 0xff;
  return memory;
}

void wait(State state) {
  Runner& r = *running;
  Thread& t = *r.threads[r.current];
  t.state = state;
  Fiber::switch_to(t.fiber, r.main);
}

// Instead of memcpy, whose calls TSan takes for accesses of the program.
void copy_dwords(unsigned char* to, const unsigned char* from, size_t bytes) {
  for (size_t b = 0; b < bytes; b += 4) __builtin_memcpy(to + b, from + b, 4);
}

// All lanes of `mask` from thread `first` on wait for the same exchange: each gets what the others give. A whole
// subgroup reads one copy: nobody comes to its next exchange who has not read it.
void deliver(Runner& r, unsigned first, uint32_t mask) {
  if (mask == 0xffffffffu) {
    const size_t bytes = r.threads[first]->bytes;
    std::vector<unsigned char>& all = r.exchanged[first / kSubgroup];
    if (all.size() < kSubgroup * bytes) all.resize(kSubgroup * bytes);
    for (unsigned i = 0; i < kSubgroup; i++) {
      Thread& lane = *r.threads[first + i];
      lane.state = State::Ready;
      lane.taken = all.data();
      copy_dwords(all.data() + i * bytes, lane.given, bytes);
    }
    return;
  }
  for (unsigned i = 0; i < kSubgroup; i++) {
    if (!(mask >> i & 1)) continue;
    Thread& to = *r.threads[first + i];
    to.state = State::Ready;
    for (unsigned j = 0; j < kSubgroup && to.bytes; j++) {
      if (!(mask >> j & 1)) continue;
      const unsigned char* given = r.threads[first + j]->given;
      copy_dwords(to.taken + j * to.bytes, given, to.bytes);
    }
  }
}

void thread_main(void*) {
  Runner& r = *running;
  const unsigned me = r.current;
  acquire(&r.grid_begins);
  r.body(r.argument);
  release(&r.grid_ends);
  r.threads[me]->state = State::Ended;
  Fiber::switch_to(r.threads[me]->fiber, r.main, /*for_good=*/true);
}

// Lets go the subgroups that met, or else the whole group if it met. False: nobody can go on.
bool release_waiting(Runner& r) {
  bool any = false;
  for (unsigned first = 0; first < r.count; first += kSubgroup) {
    const unsigned lanes = std::min(kSubgroup, r.count - first);
    for (unsigned l = 0; l < lanes; l++) {
      const Thread& t = *r.threads[first + l];
      if (t.state != State::AtExchange) continue;
      bool met = true;
      for (unsigned i = 0; i < kSubgroup && met; i++) {
        if (!(t.mask >> i & 1)) continue;
        if (i >= lanes) fault("an exchange names a lane that does not exist");
        const Thread& other = *r.threads[first + i];
        met = other.state == State::AtExchange && other.operation == t.operation && other.mask == t.mask &&
              other.bytes == t.bytes;
      }
      if (met) deliver(r, first, t.mask);
      any = any || met;
    }
  }
  if (any) return true;
  for (unsigned i = 0; i < r.count; i++)
    if (r.threads[i]->state != State::AtBarrier) return false;
  for (unsigned i = 0; i < r.count; i++) r.threads[i]->state = State::Ready;
  return true;
}

std::string describe_stuck(const Runner& r) {
  unsigned barrier = 0, exchange = 0, ended = 0;
  for (unsigned i = 0; i < r.count; i++) {
    barrier += r.threads[i]->state == State::AtBarrier;
    exchange += r.threads[i]->state == State::AtExchange;
    ended += r.threads[i]->state == State::Ended;
  }
  return "divergent threads in group " + std::to_string(r.group) + ": " + std::to_string(barrier) + " of " +
         std::to_string(r.count) + " wait at the group's barrier, " + std::to_string(exchange) +
         " in a subgroup operation, " + std::to_string(ended) + " have ended";
}

void free_shared(Runner& r) {
  for (const SharedObject& s : r.shared) r.retired.push_back(s.memory);
  if (r.dynamic) r.retired.push_back(r.dynamic);
  r.shared.clear();
  r.dynamic = nullptr;
#if !defined(KE_EMULATE_TSAN)
  for (void* memory : r.retired) std::free(memory);
  r.retired.clear();
#endif
}

void run_group(Runner& r, const Grid& grid) {
  r.shared_bytes = 0;
  if (grid.dynamic_shared) r.dynamic = make_shared_memory(r, grid.dynamic_shared, 128);
  for (unsigned i = 0; i < r.count; i++) {
    Thread& t = *r.threads[i];
    t.state = State::Ready;
    t.barriers = t.subgroup_barriers = 0;
    t.fiber.start(thread_main, nullptr);
  }
  release(&r.grid_begins);
  std::vector<unsigned> order(r.count);
  for (unsigned i = 0; i < r.count; i++) order[i] = i;
  for (unsigned ended = 0; ended < r.count;) {
    if (grid.seed) r.shuffle(order);
    bool ran = false;
    for (unsigned i : order) {
      if (r.threads[i]->state != State::Ready) continue;
      ran = true;
      r.current = i;
      r.inside = true;
      Fiber::switch_to(r.main, r.threads[i]->fiber);
      r.inside = false;
      if (!r.error.empty()) throw Fault(r.error);
      ended += r.threads[i]->state == State::Ended;
    }
    if (ended == r.count) break;
    if (!release_waiting(r) && !ran) throw Fault(describe_stuck(r));
  }
}

}  // namespace

void run_grid(const Grid& grid, void (*body)(void*), void* argument) {
  if (grid.threads == 0 || grid.threads > kMaxThreads) throw Fault("a group has 1 to 1024 threads");
  if (running) throw Fault("a grid is started inside a grid");
  thread_local Runner runner;
  Runner& r = runner;
  r.error.clear();
  r.shared.reserve(64);
  r.inside = false;
  r.count = grid.threads, r.body = body, r.argument = argument;
  r.shared_limit = grid.shared_limit;
  r.random = grid.seed;
  while (r.threads.size() < grid.threads) r.threads.push_back(std::make_unique<Thread>());
  r.exchanged.resize(std::max<size_t>(r.exchanged.size(), (grid.threads + kSubgroup - 1) / kSubgroup));
  r.barriers.assign(size_t{grid.groups} * 2 * (1 + (grid.threads + kSubgroup - 1) / kSubgroup), 0);
  std::vector<unsigned> groups(grid.groups);
  for (unsigned g = 0; g < grid.groups; g++) groups[g] = g;
  if (grid.seed) r.shuffle(groups);
  struct Ending {
    Runner& r;
    bool finished = false;
    ~Ending() {
      acquire(&r.grid_ends);
      free_shared(r);
      if (finished)  // else threads were left in the middle, and nothing orders the free after what they did
        for (void* memory : r.retired) std::free(memory);
      r.retired.clear();
      running = nullptr;
    }
  } ending{r};
  running = &r;
  for (unsigned g : groups) {
    r.group = g;
    run_group(r, grid);
    free_shared(r);
  }
  ending.finished = true;
}

unsigned group_index() { return running->group; }
unsigned thread_index() { return running->current; }

void group_barrier() {
  Runner& r = *running;
  char* sync = r.barrier(r.threads[r.current]->barriers++, 0);
  release(sync);
  wait(State::AtBarrier);
  acquire(sync);
}

static const void* meet(int operation, uint32_t mask, const void* value, size_t bytes, void* out) {
  Runner& r = *running;
  Thread& t = *r.threads[r.current];
  if (!(mask >> (r.current % kSubgroup) & 1)) fault("a thread takes part in an exchange whose mask does not name it");
  t.operation = operation, t.mask = mask, t.bytes = bytes;
  t.given = static_cast<const unsigned char*>(value), t.taken = static_cast<unsigned char*>(out);
  wait(State::AtExchange);
  return t.taken;
}

void subgroup_barrier(uint32_t mask) {
  Runner& r = *running;
  unsigned& number = r.threads[r.current]->subgroup_barriers;
  // Lanes that come to barriers of some of them count differently: these share one address, which orders too much.
  char* sync = r.barrier(mask == 0xffffffffu ? number++ : 0, 1 + r.current / kSubgroup);
  release(sync);
  meet(kBarrierOperation, mask, nullptr, 0, nullptr);
  acquire(sync);
}

const void* exchange(int operation, uint32_t mask, const void* value, size_t bytes, void* out) {
  if (bytes == 0 || bytes % 4) fault("exchanged values are whole dwords");
  return meet(operation, mask, value, bytes, out);
}

void* shared_object(const void* key, size_t bytes, size_t alignment) {
  Runner& r = *running;
  for (const SharedObject& s : r.shared)
    if (s.key == key) {
      acquire(s.memory);  // after its allocation, not after its maker's writes
      return s.memory;
    }
  if (r.shared.size() == r.shared.capacity()) fault("a group has too many shared objects");
  void* memory = make_shared_memory(r, bytes, alignment);
  release(memory);
  r.shared.push_back({key, memory});
  return memory;
}

void* dynamic_shared() { return running->dynamic; }

void fault(const char* what) {
  Runner* r = running;
  if (!r || !r->inside) throw Fault(what);
  r->error = what;
  Fiber::switch_to(r->threads[r->current]->fiber, r->main, /*for_good=*/true);
  __builtin_unreachable();
}

}  // namespace ke::emulate
