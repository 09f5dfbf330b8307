// Linked where the CUDA backend is not built.
#include "backend/devices.h"
#include "base/error.h"

namespace ke {

std::string cuda_unavailable() { return "this build has no CUDA backend"; }

std::shared_ptr<Backend> make_cuda_backend(const BackendOptions&) {
  fail(ErrorCode::DeviceUnavailable, cuda_unavailable());
}

}  // namespace ke
