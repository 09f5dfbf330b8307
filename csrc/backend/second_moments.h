// Sums of x_i x_j over rows x: what error feedback needs of the inputs of a matrix.
#pragma once
#include <cstdint>
#include <vector>

#include "base/thread_pool.h"

namespace ke {

// Rows wait until kWaiting of them are there and are then added at once: the sums of 8192 columns take 268 MB, and to
// read and write them for every row would take longer than the products. Sums depend on the rows and
// their order alone, not on how many come in one call, nor on threads.
class SecondMoments {
 public:
  static constexpr int64_t kWaiting = 128;

  explicit SecondMoments(int64_t cols);  // takes about 4 cols^2 + 4 kWaiting cols bytes

  void add(const float* x, int64_t rows, ThreadPool& pool);  // x: (rows, cols) contiguous
  // (cols, cols): the sums for j <= i, zeros for j > i.
  const std::vector<float>& sums(ThreadPool& pool);

 private:
  void add_waiting(ThreadPool& pool);
  void add_waiting_to(int64_t i);

  int64_t cols_, stride_, waiting_ = 0;
  std::vector<float> sums_;
  std::vector<float> rows_;  // (kWaiting, stride_): the rows that wait
};

}  // namespace ke
