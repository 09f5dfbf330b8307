// Which instruction set's kernels run.
#pragma once
#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/kv_codes.h"

namespace ke::cpu {

// Names of the instruction sets that this machine can run, best first; the last is "scalar".
std::vector<std::string> available_isas();

// The kernels of the instruction set `name`; empty: the one KOSMOS_EDGE_ISA names, else the best available.
// Throws DeviceUnavailable for a name that is unknown or that this machine cannot run.
const Kernels& select_kernels(const std::string& name);
// Those for quantized caches, of the same instruction set.
const KvCodeKernels& kv_code_kernels_of(const Kernels& kernels);

}  // namespace ke::cpu
