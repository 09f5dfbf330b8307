// How many CPUs the operating system lets this process use; default_thread_count() combines them.
#pragma once
#include <string>

namespace ke {

// CPUs in this process's affinity mask; at least 1.
int affinity_cpus();

// The CPU quota of this process's control groups in CPUs (1.5 = 150 ms per 100 ms), the tightest one on the path from
// its own group to the root; 0 if there is none. Reads version 2 (cpu.max) and version 1 (cpu.cfs_quota_us).
// proc_cgroup: normally "/proc/self/cgroup"; mount: normally "/sys/fs/cgroup" (tests pass copies).
double cgroup_cpu_quota(const std::string& proc_cgroup, const std::string& mount);

// The value of OMP_NUM_THREADS if it is one positive integer, else 0.
int omp_num_threads();

}  // namespace ke
