#include "cpu/select.h"

#include <cstdlib>

#include "base/error.h"
#include "cpu/cpuid.h"

namespace ke::cpu {

// KE_ISA_X: CMakeLists.txt builds the kernels of X.
#define KE_DECLARE_KERNELS(isa) \
  namespace isa {               \
  extern const Kernels kernels; \
  }
KE_DECLARE_KERNELS(avx512vnni)
KE_DECLARE_KERNELS(avxvnni)
KE_DECLARE_KERNELS(avx2)
KE_DECLARE_KERNELS(neoni8mm)
KE_DECLARE_KERNELS(neondot)
KE_DECLARE_KERNELS(scalar)
#undef KE_DECLARE_KERNELS

namespace {

struct Isa {
  const char* name;
  uint32_t needs;  // Feature bits
  const Kernels* kernels;
};

const Isa isas[] = {
// best first
#ifdef KE_ISA_AVX512VNNI
    {"avx512vnni", kAvx2 | kAvx512 | kAvx512Vnni, &avx512vnni::kernels},
#endif
#ifdef KE_ISA_AVXVNNI
    {"avxvnni", kAvx2 | kAvxVnni, &avxvnni::kernels},
#endif
#ifdef KE_ISA_AVX2
    {"avx2", kAvx2, &avx2::kernels},
#endif
#ifdef KE_ISA_NEONI8MM
    {"neoni8mm", kNeonDot | kNeonI8mm, &neoni8mm::kernels},
#endif
#ifdef KE_ISA_NEONDOT
    {"neondot", kNeonDot, &neondot::kernels},
#endif
    {"scalar", 0, &scalar::kernels},
};

bool runs(const Isa& isa) { return (cpu_features() & isa.needs) == isa.needs; }

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : isas)
    if (runs(isa)) names.push_back(isa.name);
  return names;
}

const Kernels& select_kernels(const std::string& name) {
  std::string wanted = name;
  const char* variable = std::getenv("KOSMOS_EDGE_ISA");
  if (wanted.empty() && variable) wanted = variable;
  bool known = wanted.empty();
  for (const Isa& isa : isas) {
    if (!wanted.empty() && wanted != isa.name) continue;
    known = true;
    if (runs(isa)) return *isa.kernels;
  }
  std::string list;
  for (const std::string& n : available_isas()) list += (list.empty() ? "" : ", ") + n;
  fail(ErrorCode::DeviceUnavailable, known ? "this processor cannot run" : "unknown", " instruction set '", wanted, "'",
       name.empty() ? " (from KOSMOS_EDGE_ISA)" : "", "; available here: ", list);
}

}  // namespace ke::cpu
