// Loading helpers shared by the layers: a norm, a vector on the device, a matrix product with its bias. What a model
// has (biases, betas) is set by its shape, never by the tensors in a file.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"
#include "format/weights.h"

namespace ke {

struct NormShape {
  NormKind kind = NormKind::Layer;
  float eps = 1e-5f;
  bool bias = true;  // has a beta
};

struct LoadedNorm {
  std::unique_ptr<Buffer> gamma, beta;  // (n); beta may be absent
  float eps = 1e-5f;
  NormKind kind = NormKind::Layer;
  operator Norm() const { return {gamma.get(), beta.get(), eps, kind}; }
};

// A matrix of a product: name.weight (out, in), and name.bias (out) if it has biases.
struct Part {
  std::string name;
  int64_t out;
};

// host (rows, cols) -> device
std::unique_ptr<Buffer> load_floats(Backend& backend, const std::vector<float>& host, int64_t rows, int64_t cols);
// name.weight and, with shape.bias, name.bias, (n) each
LoadedNorm load_norm(Backend& backend, Weights& weights, const std::string& name, int64_t n, const NormShape& shape);
// One product from several matrices, stacked by rows. quantized: set if one of them is stored in blocks.
std::unique_ptr<Linear> load_linear(Backend& backend, Weights& weights, const std::vector<Part>& parts, int64_t in,
                                    bool bias, MatmulUse use = MatmulUse::Any, bool* quantized = nullptr);

}  // namespace ke
