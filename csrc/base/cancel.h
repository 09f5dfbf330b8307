// A flag that one thread sets and the computing thread polls between layers.
#pragma once
#include <atomic>
#include <functional>
#include <utility>

#include "base/error.h"

namespace ke {

class CancelToken {
 public:
  CancelToken() = default;
  // poll is called on the computing thread, in addition to the flag; true cancels.
  explicit CancelToken(std::function<bool()> poll) : poll_(std::move(poll)) {}
  void cancel() { flag_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return flag_.load(std::memory_order_relaxed) || (poll_ && poll_()); }
  void check() const { KE_CHECK(!cancelled(), Cancelled, "cancelled by the caller"); }

 private:
  std::atomic<bool> flag_{false};
  std::function<bool()> poll_;
};

}  // namespace ke
