// A non-owning view of one stored tensor.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "quant/dtype.h"

namespace ke {

struct Tensor {
  std::string name;
  DType dtype = DType::F32;
  std::vector<int64_t> shape;     // outermost first: (rows, cols) for a matrix, (n) for a vector; cols are contiguous
  const uint8_t* data = nullptr;  // shape-product values of dtype
  size_t bytes = 0;

  int64_t rows() const { return shape.size() < 2 ? 1 : shape[shape.size() - 2]; }  // of a matrix or vector
  int64_t cols() const { return shape.empty() ? 1 : shape.back(); }
  int64_t count() const {
    int64_t n = 1;
    for (int64_t s : shape) n *= s;
    return n;
  }
};

}  // namespace ke
