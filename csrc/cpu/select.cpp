#include "cpu/select.h"

#include <cstdlib>

#include "base/error.h"
#include "cpu/cpuid.h"

namespace ke::cpu {

namespace scalar {
extern const Kernels kernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kernels;
}
namespace avxvnni {
extern const Kernels kernels;
}
namespace avx512vnni {
extern const Kernels kernels;
}
#elif defined(__aarch64__)
namespace neondot {
extern const Kernels kernels;
}
namespace neoni8mm {
extern const Kernels kernels;
}
#endif

namespace {

struct Isa {
  const char* name;
  uint32_t needs;  // Feature bits
  const Kernels* kernels;
};

const Isa isas[] = {
// best first
#if defined(__x86_64__)
    {"avx512vnni", kAvx2 | kAvx512 | kAvx512Vnni, &avx512vnni::kernels},
    {"avxvnni", kAvx2 | kAvxVnni, &avxvnni::kernels},
    {"avx2", kAvx2, &avx2::kernels},
#elif defined(__aarch64__)
    {"neoni8mm", kNeonDot | kNeonI8mm, &neoni8mm::kernels},
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
