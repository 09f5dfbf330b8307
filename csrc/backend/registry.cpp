// The list of devices: one line each, best first.
#include "backend/devices.h"
#include "base/error.h"

namespace ke {

namespace {

struct Device {
  const char* name;
  bool (*installed)();  // false: say nothing when it is unavailable
  std::string (*unavailable)();
  std::shared_ptr<Backend> (*make)(const BackendOptions&);
};

const Device devices[] = {
    {"cuda", cuda_installed, cuda_unavailable, make_cuda_backend},
    {"metal", [] { return metal_unavailable().empty(); }, metal_unavailable, make_metal_backend},
    {"cpu", [] { return true; }, [] { return std::string(); }, make_cpu_backend},
};

// "cpu; not here: cuda (this build has no CUDA backend), ..."
std::string describe_devices() {
  std::string here, missing;
  for (const Device& d : devices) {
    const std::string why = d.unavailable();
    std::string& list = why.empty() ? here : missing;
    list += (list.empty() ? "" : ", ") + std::string(d.name) + (why.empty() ? "" : " (" + why + ")");
  }
  return here + (missing.empty() ? "" : "; not here: " + missing);
}

// What to try in turn for these options; the last is "cpu", or the one that they name.
std::vector<std::string> preferred_devices(const BackendOptions& options) {
  if (options.device != "auto") return {options.device};
  std::vector<std::string> names;
  for (const Device& d : devices)
    if (d.installed() && (options.isa.empty() || d.make == make_cpu_backend)) names.push_back(d.name);
  return names;
}

// Empty when it can be used here.
std::string device_unavailable(const std::string& name) {
  for (const Device& d : devices)
    if (d.name == name) return d.unavailable();
  return "";
}

}  // namespace

std::string with_best_device(const BackendOptions& options, const std::function<void(const BackendOptions&)>& use) {
  const std::vector<std::string> names = preferred_devices(options);
  std::string fallback;
  for (const std::string& name : names) {
    BackendOptions named = options;
    named.device = name;
    const bool last = &name == &names.back();
    std::string why = last ? "" : device_unavailable(name);
    if (why.empty()) {
      try {
        use(named);
        return fallback;
      } catch (const Error& e) {
        if (last || (e.code() != ErrorCode::DeviceUnavailable && e.code() != ErrorCode::OutOfMemory)) throw;
        why = e.what();
      }
    }
    fallback += concat(fallback.empty() ? "" : "; ", name, " is not used: ", why);
  }
  return fallback;
}

std::vector<std::pair<std::string, std::string>> list_devices() {
  std::vector<std::pair<std::string, std::string>> out;
  for (const Device& d : devices) out.push_back({d.name, d.unavailable()});
  return out;
}

std::shared_ptr<Backend> make_backend(const BackendOptions& options) {
  const std::string name = options.device.substr(0, options.device.find(':'));
  for (const Device& d : devices) {
    if (name != "auto" && name != d.name) continue;
    const std::string why = d.unavailable();
    if (why.empty()) {
      KE_CHECK(name != "cpu" || options.device == "cpu", InvalidRequest, "the cpu has no index, got device '",
               options.device, "'");
      return d.make(options);
    }
    KE_CHECK(name == "auto", DeviceUnavailable, "device '", options.device, "' is not available: ", why,
             "; devices here: ", describe_devices());
  }
  fail(ErrorCode::InvalidRequest, "unknown device '", options.device, "'; devices here: ", describe_devices());
}

}  // namespace ke
