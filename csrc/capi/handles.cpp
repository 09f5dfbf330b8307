#include "capi/handles.h"

#include <deque>
#include <mutex>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#include <unistd.h>
#endif

#include "base/error.h"

namespace ke::capi {
namespace {

// value = generation | index | kind | 1. The generation tells a handle from the ones that had its place before; the low
// bit makes it no address of anything.
constexpr unsigned kKindBits = 4, kIndexShift = kKindBits + 1, kIndexBits = sizeof(uintptr_t) >= 8 ? 28 : 15,
                   kGenerationShift = kIndexShift + kIndexBits;
constexpr uintptr_t kMaxIndex = (uintptr_t{1} << kIndexBits) - 1, kMaxGeneration = UINTPTR_MAX >> kGenerationShift;

struct Place {
  uintptr_t generation = 1;
  Kind kind = Kind::Error;
  std::shared_ptr<void> object;  // empty: free
};

struct Table {
  std::mutex mutex;
  std::vector<Place> places;
  std::deque<uintptr_t> free;  // the longest free first, so that numbers come back late
};

Table& table();

#if !defined(_WIN32)
// A fork while another thread holds the lock would leave it locked in the child for ever.
void lock_table() { table().mutex.lock(); }
void unlock_table() { table().mutex.unlock(); }
#endif

// Never destroyed: threads of the host may still call while the process ends.
Table& table() {
  static Table* const t = [] {
    Table* made = new Table;
#if !defined(_WIN32)
    pthread_atfork(lock_table, unlock_table, unlock_table);
#endif
    return made;
  }();
  return *t;
}

Place* locate(Table& t, const void* handle, Kind kind) {
  const uintptr_t value = reinterpret_cast<uintptr_t>(handle);
  const uintptr_t index = (value >> kIndexShift) & kMaxIndex;
  if ((value & 1) == 0 || index >= t.places.size()) return nullptr;
  Place& p = t.places[index];
  const bool live = p.object && p.kind == kind && p.generation == value >> kGenerationShift &&
                    ((value >> 1) & ((1U << kKindBits) - 1)) == static_cast<uintptr_t>(kind);
  return live ? &p : nullptr;
}

}  // namespace

void* insert_handle(Kind kind, std::shared_ptr<void> object) {
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  uintptr_t index = t.places.size();
  if (t.free.empty()) {
    KE_CHECK(index <= kMaxIndex, OutOfMemory, "more than ", kMaxIndex, " objects: free some");
    t.places.emplace_back();
  } else {
    index = t.free.front();
    t.free.pop_front();
  }
  Place& p = t.places[index];
  p.kind = kind;
  p.object = std::move(object);
  return reinterpret_cast<void*>(p.generation << kGenerationShift | index << kIndexShift |
                                 static_cast<uintptr_t>(kind) << 1 | 1);
}

std::shared_ptr<void> find_handle(const void* handle, Kind kind) noexcept {
  if (handle == nullptr) return nullptr;
  try {
    Table& t = table();
    const std::lock_guard lock(t.mutex);
    const Place* p = locate(t, handle, kind);
    return p ? p->object : nullptr;
  } catch (...) {  // no table: no memory even for that
    return nullptr;
  }
}

std::shared_ptr<void> take_handle(const void* handle, Kind kind) noexcept {
  if (handle == nullptr) return nullptr;
  try {
    Table& t = table();
    const std::lock_guard lock(t.mutex);
    Place* p = locate(t, handle, kind);
    if (!p) return nullptr;
    std::shared_ptr<void> object = std::move(p->object);
    p->object = nullptr;
    if (p->generation < kMaxGeneration) {  // a place that has run out of generations is not used again
      ++p->generation;
      try {
        t.free.push_back(reinterpret_cast<uintptr_t>(handle) >> kIndexShift & kMaxIndex);
      } catch (const std::bad_alloc&) {  // the place is lost, nothing else
      }
    }
    return object;
  } catch (...) {
    return nullptr;
  }
}

int64_t process_number() noexcept {
#if defined(_WIN32)
  return 0;  // there is no fork
#else
  return getpid();
#endif
}

}  // namespace ke::capi
