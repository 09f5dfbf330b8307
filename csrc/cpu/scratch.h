// Temporary memory of the operations: one arena per call in flight, kept for the next call.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "cpu/memory.h"

namespace ke::cpu {

// Hands out 64-byte aligned pieces; the pieces of one call live until the next reset.
class Arena {
 public:
  // Makes room for `bytes` in all; earlier pieces become void.
  void reset(size_t bytes) {
    used_ = 0;
    if (bytes > memory_.size()) {
      memory_ = Memory();  // the old one goes first, so that the peak stays low
      memory_ = Memory(bytes + bytes / 4);
    }
  }
  uint8_t* take(size_t bytes) {
    uint8_t* p = memory_.data() + used_;
    used_ += padded(bytes);
    return p;
  }
  size_t bytes() const { return memory_.size(); }
  static size_t padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  Memory memory_;
  size_t used_ = 0;
};

// Arenas not in use. As many exist as calls were ever in flight at once.
class ArenaPool {
 public:
  class Lease {
   public:
    explicit Lease(ArenaPool& pool) : pool_(pool), arena_(pool.acquire()) {}
    ~Lease() { pool_.release(std::move(arena_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Arena* operator->() const { return arena_.get(); }
    Arena& operator*() const { return *arena_; }

   private:
    ArenaPool& pool_;
    std::unique_ptr<Arena> arena_;
  };

  // Gives back the memory of every arena that is not in use and holds more than `bytes`.
  void trim(size_t bytes) {
    std::lock_guard lock(mutex_);
    for (std::unique_ptr<Arena>& arena : free_)
      if (arena->bytes() > bytes) *arena = Arena();
  }

 private:
  std::unique_ptr<Arena> acquire() {
    std::lock_guard lock(mutex_);
    if (free_.empty()) {
      free_.reserve(++made_);  // so that release never allocates
      return std::make_unique<Arena>();
    }
    std::unique_ptr<Arena> a = std::move(free_.back());
    free_.pop_back();
    return a;
  }
  void release(std::unique_ptr<Arena> a) {
    std::lock_guard lock(mutex_);
    free_.push_back(std::move(a));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Arena>> free_;
  size_t made_ = 0;
};

}  // namespace ke::cpu
