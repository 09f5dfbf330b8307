// Linked where the Metal backend is not built.
#include "backend/devices.h"
#include "base/error.h"

namespace ke {

std::string metal_unavailable() { return "this build has no Metal backend"; }

std::shared_ptr<Backend> make_metal_backend(const BackendOptions&) {
  fail(ErrorCode::DeviceUnavailable, metal_unavailable());
}

}  // namespace ke
