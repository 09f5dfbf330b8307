// What this machine can do at most, measured: the roofs that the benchmark sets its figures against.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace ke::cpu {

enum class Probe {
  Read,     // bytes per second read from memory
  Int8,     // 8-bit multiply-accumulates per second, summed as the kernels of the instruction set do it
  Float32,  // float32 multiply-accumulates per second
};

// `rounds` measurements with `threads` threads at once. isa: as for select_kernels, "" = the one that runs here.
// bytes: of memory to read from (Read only; much more than the caches hold). Throws DeviceUnavailable for an unknown
// isa, InvalidRequest for threads, rounds or bytes out of range, OutOfMemory.
std::vector<double> run_probe(Probe probe, const std::string& isa, int threads, int rounds, size_t bytes);

// Which instruction set multiplies one row, decided on matrices made up for it, `bytes` of weights of each type (more
// than the caches hold, where it is to say something about decoding a large model). threads, isa: as for
// BackendOptions.
std::vector<KernelChoice> run_one_row_probe(const std::string& isa, int threads, size_t bytes);

}  // namespace ke::cpu
