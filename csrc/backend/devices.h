// What each device supplies to the registry. A device that is not built in is linked as no_<device>.cpp; CUDA is a
// library of its own (device_library.h).
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace ke {

// Why the device cannot be used here; empty when it can.
std::string cuda_unavailable();
std::string metal_unavailable();
// Whether the CUDA library is installed, so that an error should say why it cannot be used.
bool cuda_installed();

// Calls use() with options that name a device: the one they name, or for "auto" in turn all that are installed, best
// first, until one can be used and use() throws neither DeviceUnavailable nor OutOfMemory; the processor's errors pass
// through. With an instruction set named, "auto" is the processor. Returns why the better ones are not used, in a line;
// empty where there are none.
std::string with_best_device(const BackendOptions& options, const std::function<void(const BackendOptions&)>& use);

// options.device names this device (perhaps with ":index"). Throws DeviceUnavailable.
std::shared_ptr<Backend> make_cpu_backend(const BackendOptions& options);
std::shared_ptr<Backend> make_cuda_backend(const BackendOptions& options);
std::shared_ptr<Backend> make_metal_backend(const BackendOptions& options);

}  // namespace ke
