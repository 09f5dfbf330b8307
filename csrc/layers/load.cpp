#include "layers/load.h"

namespace ke {

std::unique_ptr<Buffer> load_floats(Backend& backend, const std::vector<float>& host, int64_t rows, int64_t cols) {
  KE_ASSERT(static_cast<int64_t>(host.size()) == rows * cols);
  std::unique_ptr<Buffer> b = backend.alloc(rows * cols);
  backend.write(host.data(), Mat(*b, rows, cols));
  return b;
}

LoadedNorm load_norm(Backend& backend, Weights& weights, const std::string& name, int64_t n, const NormShape& shape) {
  LoadedNorm norm;
  norm.gamma = load_floats(backend, weights.vector(name + ".weight", n), 1, n);
  if (shape.bias) norm.beta = load_floats(backend, weights.vector(name + ".bias", n), 1, n);
  norm.eps = shape.eps;
  norm.kind = shape.kind;
  return norm;
}

std::unique_ptr<Linear> load_linear(Backend& backend, Weights& weights, const std::vector<Part>& parts, int64_t in,
                                    bool bias, MatmulUse use, bool* quantized) {
  std::vector<Tensor> tensors;
  std::vector<float> biases;
  for (const Part& part : parts) {
    tensors.push_back(weights.matrix(part.name + ".weight", part.out, in));
    if (quantized && dtype_info(tensors.back().dtype).block_elems > 1) *quantized = true;
    if (!bias) continue;
    const std::vector<float> b = weights.vector(part.name + ".bias", part.out);
    biases.insert(biases.end(), b.begin(), b.end());
  }
  std::unique_ptr<Linear> linear = backend.upload(tensors, bias ? biases.data() : nullptr, use);
  for (const Tensor& t : tensors) weights.release(t);
  return linear;
}

}  // namespace ke
