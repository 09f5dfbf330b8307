// A device's backend in a shared library of its own, opened at run time: what it must supply.
#pragma once
#include <string>

#include "backend/backend.h"

namespace ke {

// Both sides are C++ and share the classes of backend.h: a library of another interface or compiler is refused.
// To be raised with every change of backend.h or of this file.
constexpr int kDeviceInterface = 3;
#define KE_DEVICE_COMPILER __VERSION__

struct DeviceLibrary {
  int interface;
  const char* compiler;
  // Why no device can be used; empty when one can.
  std::string (*unavailable)();
  // The device with this index. DeviceUnavailable, OutOfMemory.
  Backend* (*make)(int index);
};

// The library's one exported function.
constexpr const char* kDeviceLibraryEntry = "kosmos_edge_device_library";
using DeviceLibraryEntry = const DeviceLibrary* (*)();

}  // namespace ke
