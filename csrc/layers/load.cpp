#include "layers/load.h"

namespace ke {

std::unique_ptr<Buffer> load_floats(Backend& backend, const std::vector<float>& host, int64_t rows, int64_t cols) {
  KE_ASSERT(static_cast<int64_t>(host.size()) == rows * cols);
  std::unique_ptr<Buffer> b = backend.alloc(rows * cols);
  backend.write(host.data(), Mat(*b, rows, cols));
  return b;
}

LayerNorm load_norm(Backend& backend, Weights& weights, const std::string& name, int64_t n, float eps) {
  LayerNorm norm;
  norm.gamma = load_floats(backend, weights.vector(name + ".weight", n), 1, n);
  norm.beta = load_floats(backend, weights.vector(name + ".bias", n), 1, n);
  norm.eps = eps;
  return norm;
}

std::unique_ptr<Linear> load_linear(Backend& backend, Weights& weights, const std::vector<std::string>& names,
                                    int64_t out, int64_t in, Use use) {
  std::vector<Tensor> parts;
  std::vector<float> bias;
  for (const std::string& name : names) {
    parts.push_back(weights.matrix(name + ".weight", out, in));
    const std::vector<float> b = weights.vector(name + ".bias", out);
    bias.insert(bias.end(), b.begin(), b.end());
  }
  std::unique_ptr<Linear> linear = backend.upload(parts, bias.data(), use);
  for (const Tensor& part : parts) weights.release(part);
  return linear;
}

}  // namespace ke
