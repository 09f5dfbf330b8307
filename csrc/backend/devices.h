// What each device supplies to the registry. A device that is not built in is linked as no_<device>.cpp; CUDA is a
// library of its own (device_library.h).
#pragma once
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

// What to try in turn for these options: the device they name, or for "auto" all that are installed, best first; the
// last is "cpu". With an instruction set named, "auto" is the processor.
std::vector<std::string> preferred_devices(const BackendOptions& options);

// Why the device of this name, one of preferred_devices(), cannot be used here; empty when it can.
std::string device_unavailable(const std::string& name);

// options.device names this device (perhaps with ":index"). Throws DeviceUnavailable.
std::shared_ptr<Backend> make_cpu_backend(const BackendOptions& options);
std::shared_ptr<Backend> make_cuda_backend(const BackendOptions& options);
std::shared_ptr<Backend> make_metal_backend(const BackendOptions& options);

}  // namespace ke
