// Affinity mask, control-group quota and OMP_NUM_THREADS.
#include "base/cpu_limits.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

namespace ke {

int affinity_cpus() {
#ifdef __linux__
  for (int cpus = 1024; cpus <= 1 << 16; cpus *= 2) {  // the kernel says EINVAL while the mask is too small for it
    std::vector<unsigned long> mask(cpus / (8 * sizeof(unsigned long)));
    auto* set = reinterpret_cast<cpu_set_t*>(mask.data());
    const size_t bytes = mask.size() * sizeof(unsigned long);
    if (sched_getaffinity(0, bytes, set) == 0) return std::max(1, CPU_COUNT_S(bytes, set));
  }
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

namespace {

// A number from a one-number file; -1 when there is no such file or no such number ("max").
double number_in(const std::string& path) {
  std::ifstream file(path);
  double value = -1;
  return file >> value ? value : -1;
}

// Both versions' limits of the group in `folder`, in CPUs; 0 = none.
double quota_of(const std::string& folder) {
  if (std::ifstream file(folder + "/cpu.max"); file) {
    std::string quota;
    double period = 0;
    if (file >> quota >> period && quota != "max" && period > 0) return std::strtod(quota.c_str(), nullptr) / period;
    return 0;
  }
  const double quota = number_in(folder + "/cpu.cfs_quota_us"), period = number_in(folder + "/cpu.cfs_period_us");
  return quota > 0 && period > 0 ? quota / period : 0;
}

// The tightest quota of `group` ("/a/b") and its parents below `root`.
double tightest(const std::string& root, std::string group) {
  double best = 0;
  while (true) {
    if (const double q = quota_of(root + group); q > 0 && (best == 0 || q < best)) best = q;
    if (group.empty()) return best;
    group.erase(group.rfind('/'));  // a group starts with '/', so this ends at ""
  }
}

}  // namespace

double cgroup_cpu_quota(const std::string& proc_cgroup, const std::string& mount) {
  std::ifstream file(proc_cgroup);
  double best = 0;
  for (std::string line; std::getline(file, line);) {  // "hierarchy:controllers:/group"; version 2 is "0::/group"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string group = line.substr(second + 1);
    if (group.empty() || group[0] != '/') continue;
    if (group == "/") group.clear();
    std::vector<std::string> roots;
    if (controllers.empty()) {
      roots = {mount, mount + "/unified"};
    } else {
      std::stringstream names(controllers);
      bool cpu = false;
      for (std::string name; std::getline(names, name, ',');) cpu |= name == "cpu";
      if (cpu) roots = {mount + "/" + controllers, mount + "/cpu"};
    }
    for (const std::string& root : roots)
      if (const double q = tightest(root, group); q > 0 && (best == 0 || q < best)) best = q;
  }
  return best;
}

int omp_num_threads() {
  const char* text = std::getenv("OMP_NUM_THREADS");
  if (!text || *text < '0' || *text > '9') return 0;
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  return *end == 0 && n >= 1 && n <= 4096 ? static_cast<int>(n) : 0;
}

}  // namespace ke
