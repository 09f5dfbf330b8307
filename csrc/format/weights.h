// Hands out a file's tensors by name and shape; what was never asked for is an error at the end.
#pragma once
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "format/gguf.h"

namespace ke {

class Weights {
 public:
  explicit Weights(std::shared_ptr<GgufFile> file);
  // ModelCorrupt when missing, of another shape, or a type whose blocks do not fit the row length.
  Tensor matrix(const std::string& name, int64_t rows, int64_t cols);  // any DType
  Tensor tensor(const std::string& name, const std::vector<int64_t>& shape);
  std::vector<float> vector(const std::string& name, int64_t n);  // decoded to float32
  std::vector<float> floats(const std::string& name, const std::vector<int64_t>& shape);  // decoded to float32
  void release(const Tensor& tensor) const;  // see GgufFile::release
  void finish() const;  // ModelCorrupt naming tensors that nobody asked for

 private:
  std::shared_ptr<GgufFile> file_;
  std::set<std::string> used_;
};

}  // namespace ke
