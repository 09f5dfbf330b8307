// The CUDA backend as libkosmos_edge_cuda, if it is installed: beside this library, in lib/ there, or where
// KOSMOS_EDGE_CUDA_LIBRARY says. Opened at the first question about CUDA that finds it and never closed.
#include <charconv>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "backend/device_library.h"
#include "backend/devices.h"
#include "base/error.h"

#ifndef _WIN32
#include <dlfcn.h>
#include <unistd.h>
#endif

namespace ke {

namespace {

struct Opened {
  const DeviceLibrary* library = nullptr;
  std::string reason;      // why there is no library
  bool installed = false;  // there is a file, whether or not it is of use
};

#ifdef _WIN32
std::string library_path() { return ""; }
Opened open_library(const std::string&) { return {}; }
#else
std::string library_path() {
  const char* named = std::getenv("KOSMOS_EDGE_CUDA_LIBRARY");
  if (named && *named) return named;
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void*>(&make_cuda_backend), &info) || !info.dli_fname) return "";
  const std::string self = info.dli_fname, folder = self.substr(0, self.rfind('/') + 1);
  for (const char* place : {"libkosmos_edge_cuda.so", "lib/libkosmos_edge_cuda.so"})
    if (access((folder + place).c_str(), F_OK) == 0) return folder + place;
  return "";
}

Opened open_library(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char* why = dlerror();
    return {nullptr, concat("the CUDA backend cannot be loaded: ", why ? why : path.c_str()), true};
  }
  const auto entry = reinterpret_cast<DeviceLibraryEntry>(dlsym(handle, kDeviceLibraryEntry));
  if (!entry) return {nullptr, concat(path, " is not a CUDA backend: it has no ", kDeviceLibraryEntry), true};
  const DeviceLibrary* library = entry();
  if (library->interface != kDeviceInterface || std::string_view(library->compiler) != KE_DEVICE_COMPILER)
    return {nullptr,
            concat(path, " was built for another kosmos-edge: expected interface ", kDeviceInterface, " by compiler ",
                   KE_DEVICE_COMPILER, ", got ", library->interface, " by ", library->compiler),
            true};
  return {library, "", true};
}
#endif

const Opened& opened() {
  static const Opened missing{nullptr, "the CUDA backend (libkosmos_edge_cuda.so) is not installed", false};
  static std::mutex mutex;
  static std::map<std::string, Opened> known;  // by path
  const std::string path = library_path();
  if (path.empty()) return missing;
  std::lock_guard lock(mutex);
  const auto it = known.find(path);
  return it != known.end() ? it->second : known.emplace(path, open_library(path)).first->second;
}

}  // namespace

bool cuda_installed() { return opened().installed; }

std::string cuda_unavailable() {
  const Opened& o = opened();
  return o.library ? o.library->unavailable() : o.reason;
}

std::shared_ptr<Backend> make_cuda_backend(const BackendOptions& options) {
  const std::string why = cuda_unavailable();
  KE_CHECK(why.empty(), DeviceUnavailable, why);
  int index = 0;
  const size_t colon = options.device.find(':');
  if (colon != std::string::npos) {
    const char *begin = options.device.data() + colon + 1, *end = options.device.data() + options.device.size();
    const auto [stopped, error] = std::from_chars(begin, end, index);
    KE_CHECK(error == std::errc() && stopped == end && index >= 0, InvalidRequest,
             "expected 'cuda' or 'cuda:' and the device's number, got '", options.device, "'");
  }
  return std::shared_ptr<Backend>(opened().library->make(index));
}

}  // namespace ke
