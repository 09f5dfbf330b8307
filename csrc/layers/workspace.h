// Reusable memory of one running call: numbered activation matrices and lists that only grow, so that a steady state
// allocates nothing (tests/native/allocations.cpp).
#pragma once
#include <memory>
#include <vector>

#include "backend/backend.h"

namespace ke {

class Workspace {
 public:
  explicit Workspace(Backend& backend) : backend_(backend) {}

  // A (rows, cols) matrix in buffer `slot`; its earlier contents are void. Two live matrices need two slots.
  Mat mat(size_t slot, int64_t rows, int64_t cols) {
    if (slot >= buffers_.size()) buffers_.resize(slot + 1);
    std::unique_ptr<Buffer>& b = buffers_[slot];
    if (!b || b->count < rows * cols) {
      b.reset();  // the old one goes first, so that the peak stays low
      b = backend_.alloc(rows * cols);
    }
    return Mat(*b, rows, cols);
  }

  // On the host; void at the beginning of a call.
  std::vector<float> embedded;          // (rows, width)
  std::vector<Slot> slots, last_slots;  // of all rows; of those that go through the last layer

 private:
  Backend& backend_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

}  // namespace ke
