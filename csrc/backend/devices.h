// What each device supplies to the registry. A device that is not built in is linked as no_<device>.cpp.
#pragma once
#include <memory>

#include "backend/backend.h"

namespace ke {

// Why the device cannot be used here; empty when it can.
std::string cuda_unavailable();
std::string metal_unavailable();

// options.device names this device (perhaps with ":index"). Throws DeviceUnavailable.
std::shared_ptr<Backend> make_cpu_backend(const BackendOptions& options);
std::shared_ptr<Backend> make_cuda_backend(const BackendOptions& options);
std::shared_ptr<Backend> make_metal_backend(const BackendOptions& options);

}  // namespace ke
