// What each matrix of a model is multiplied with, summed over all rows: what calibrated quantization needs to know.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/second_moments.h"
#include "base/thread_pool.h"

namespace ke {

class ActivationRecorder {
 public:
  // Of the inputs x of one matrix.
  struct Sums {
    int64_t cols = 0, rows = 0;
    std::vector<double> sum, squares;  // (cols): sum of x and of x^2 over the rows
    // (cols, cols), where asked for: sum of x_i x_j for j <= i, zeros for j > i. Float32, because it is large.
    std::span<const float> products;
    std::unique_ptr<SecondMoments> moments;  // holds them
  };

  // products_of: tensors whose `products` are wanted; these take 4 cols^2 bytes each.
  explicit ActivationRecorder(std::set<std::string> products_of = {}) : products_of_(std::move(products_of)) {}

  void use_threads(int threads);  // for products; 1 until then
  // x: (rows, cols) contiguous; names: the tensors that are multiplied with it. Matrices with one input share sums.
  void add(const std::vector<std::string>& names, const float* x, int64_t rows, int64_t cols);

  std::vector<std::string> names() const;
  // Sums and `products` of a tensor, until rows are added. InvalidRequest where nothing was recorded under the name.
  std::shared_ptr<const Sums> find(const std::string& name) const;

 private:
  const std::set<std::string> products_of_;
  mutable std::mutex mutex_;
  std::unique_ptr<ThreadPool> pool_ = std::make_unique<ThreadPool>(1);
  std::map<std::string, std::shared_ptr<Sums>> sums_;
};

// A backend that does what `inner` does and tells the recorder of every product. Slower: rows are read back, and a norm
// before a product is made apart.
std::shared_ptr<Backend> record_activations(std::shared_ptr<Backend> inner,
                                            std::shared_ptr<ActivationRecorder> recorder);

}  // namespace ke
