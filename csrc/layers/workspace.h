// Reusable memory of one running call: activation matrices and lists that only grow, so that a steady state allocates
// nothing (tests/native/allocations.cpp).
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "backend/backend.h"

namespace ke {

class CrossMemory;  // layers/decoder.h

class Workspace {
 public:
  explicit Workspace(Backend& backend) : backend_(backend) {}

  // A matrix of fewer rows gets memory for so many: whether a pass has drafts, and how many, changes from token to
  // token (engine/drafts.h), and is not to allocate.
  static constexpr int64_t kFewestRows = 8;

  // Begins a call: earlier matrices become invalid. The vision encoder and the decoder call it; a projector continues
  // after its encoder.
  void begin() { taken_ = 0; }

  // A new (rows, cols) matrix, valid until the next begin(), uninitialised. The n-th one of a call uses
  // the same memory each time.
  Mat take(int64_t rows, int64_t cols) {
    if (taken_ == buffers_.size()) buffers_.emplace_back();
    std::unique_ptr<Buffer>& b = buffers_[taken_++];
    if (!b || b->count < rows * cols) {
      b.reset();  // the old one goes first, so that the peak stays low
      b = backend_.alloc(std::max(rows, kFewestRows) * cols);
    }
    return Mat(*b, rows, cols);
  }

  // Of all matrices, in bytes. One whose memory was refused has none.
  int64_t bytes() const {
    int64_t sum = 0;
    for (const std::unique_ptr<Buffer>& b : buffers_)
      if (b) sum += b->count * static_cast<int64_t>(sizeof(float));
    return sum;
  }
  // Gives all matrices' memory back.
  void release() {
    buffers_.clear();
    taken_ = 0;
  }

  // On the host; undefined at the beginning of a call.
  std::vector<int32_t> ids;                                 // of all rows; negative where the row is no token
  std::vector<float> positions;                             // (rows, width)
  std::vector<KvPosition> kv_positions, last_kv_positions;  // of all rows; of those that go through the last layer
  std::vector<const CrossMemory*> memories;                 // of all rows that are left, where a decoder looks at them

 private:
  Backend& backend_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
  size_t taken_ = 0;
};

}  // namespace ke
