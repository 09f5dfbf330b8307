// Lookup of tensors by name and shape.
#include "format/weights.h"

#include "base/error.h"
#include "quant/codec.h"

namespace ke {

static std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); ++i) out += concat(i ? ", " : "", shape[i]);
  return out + ")";
}

Weights::Weights(std::shared_ptr<GgufFile> file) : file_(std::move(file)) {}

Tensor Weights::tensor(const std::string& name, const std::vector<int64_t>& shape) {
  const Tensor* t = file_->find_tensor(name);
  KE_CHECK(t, ModelCorrupt, file_->path(), ": tensor ", name, " is missing; expected shape ", shape_text(shape));
  KE_CHECK(t->shape == shape, ModelCorrupt, file_->path(), ": tensor ", name, " has shape ", shape_text(t->shape),
           "; expected ", shape_text(shape));
  used_.insert(name);
  return *t;
}

Tensor Weights::matrix(const std::string& name, int64_t rows, int64_t cols) { return tensor(name, {rows, cols}); }

std::vector<float> Weights::floats(const std::string& name, const std::vector<int64_t>& shape) {
  const Tensor t = tensor(name, shape);
  std::vector<float> out(static_cast<size_t>(t.count()));
  decode(t.dtype, t.data, out.data(), t.count());
  file_->release(t);
  return out;
}

std::vector<float> Weights::vector(const std::string& name, int64_t n) { return floats(name, {n}); }

void Weights::release(const Tensor& tensor) const { file_->release(tensor); }

void Weights::finish() const {
  constexpr size_t listed = 5;
  std::string names;
  size_t unused = 0;
  for (const Tensor& t : file_->tensors())
    if (!used_.count(t.name) && ++unused <= listed)
      names += concat(unused > 1 ? ", " : "", t.name, " ", shape_text(t.shape));
  KE_CHECK(unused == 0, ModelCorrupt, file_->path(), ": ", unused, " tensors are no part of this model: ", names,
           unused > listed ? ", ..." : "");
}

}  // namespace ke
