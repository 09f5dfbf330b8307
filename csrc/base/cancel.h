// A flag that one thread sets and the computing thread polls between layers.
#pragma once
#include <atomic>

#include "base/error.h"

namespace ke {

class CancelToken {
 public:
  void cancel() { flag_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return flag_.load(std::memory_order_relaxed); }
  void check() const { KE_CHECK(!cancelled(), Cancelled, "cancelled by the caller"); }

 private:
  std::atomic<bool> flag_{false};
};

}  // namespace ke
