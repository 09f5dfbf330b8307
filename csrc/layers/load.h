// Loading helpers shared by the layers: a norm, a vector on the device, a matrix product with its bias.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"
#include "format/weights.h"

namespace ke {

struct LayerNorm {
  std::unique_ptr<Buffer> gamma, beta;  // (n)
  float eps = 1e-5f;
  operator Norm() const { return {gamma.get(), beta.get(), eps}; }
};

// host (rows, cols) -> device
std::unique_ptr<Buffer> load_floats(Backend& backend, const std::vector<float>& host, int64_t rows, int64_t cols);
// name.weight and name.bias, (n) each
LayerNorm load_norm(Backend& backend, Weights& weights, const std::string& name, int64_t n, float eps);
// One product from several matrices (out, in) with biases (out), stacked by rows: names[i].weight, names[i].bias.
std::unique_ptr<Linear> load_linear(Backend& backend, Weights& weights, const std::vector<std::string>& names,
                                    int64_t out, int64_t in, Use use = Use::Any);

}  // namespace ke
