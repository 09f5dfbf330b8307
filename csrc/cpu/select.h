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

// What may multiply one row with weights that `kernels` packed: its own products first, then those of other instruction
// sets that this machine can run and that read the same groups of panels. All give the same bits.
std::vector<OneRowKernel> one_row_kernels(const Kernels& kernels);
// Whether `name` or KOSMOS_EDGE_ISA names the instruction set, which then does everything.
bool isa_is_forced(const std::string& name);

}  // namespace ke::cpu
