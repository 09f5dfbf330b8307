// Returns a file's tensors by name and shape; an unused tensor is an error at the end.
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
  // ModelCorrupt, naming the expected and the found shape, if the tensor is missing or has another shape. (That blocks
  // fit the row length is checked by the reader.) Views are valid as long as the file; a tensor may be read twice.
  Tensor matrix(const std::string& name, int64_t rows, int64_t cols);  // any DType
  Tensor tensor(const std::string& name, const std::vector<int64_t>& shape);
  std::vector<float> vector(const std::string& name, int64_t n);                          // decoded to float32
  std::vector<float> floats(const std::string& name, const std::vector<int64_t>& shape);  // decoded to float32
  void release(const Tensor& tensor) const;                                               // see GgufFile::release
  void finish() const;  // ModelCorrupt naming up to five unused tensors

 private:
  std::shared_ptr<GgufFile> file_;
  std::set<std::string> used_;
};

}  // namespace ke
