#include "cpu/select.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "base/error.h"
#include "cpu/cpuid.h"

namespace ke::cpu {

// KE_ISA_X: CMakeLists.txt builds the kernels of X.
#define KE_DECLARE_KERNELS(isa)               \
  namespace isa {                             \
  extern const Kernels kernels;               \
  extern const KvCodeKernels kv_code_kernels; \
  }
KE_DECLARE_KERNELS(avx512vnni)
KE_DECLARE_KERNELS(avxvnni)
KE_DECLARE_KERNELS(avx2)
KE_DECLARE_KERNELS(neoni8mm)
KE_DECLARE_KERNELS(neondot)
KE_DECLARE_KERNELS(scalar)
#undef KE_DECLARE_KERNELS
namespace avx2by4 {
void linear(const LinearTask* task);
}
namespace avx512amx {
extern const int64_t linear_scratch_bytes;
void linear(const LinearTask* task);
void attend_codes(const CodedAttentionTask* task);
void pack_value_digits(const float* v, int64_t v_stride, int64_t n, int64_t head_dim, int8_t* digits, float* steps);
}  // namespace avx512amx

namespace {

struct Isa {
  const char* name;
  uint32_t needs;  // Feature bits
  const Kernels* kernels;
  const KvCodeKernels* kv_codes;
  const Kernels* one_row = kernels;  // what multiplies one row
};

#ifdef KE_ISA_AVX512AMX
// AVX-512's kernels but for products with many rows and attention of an encoder.
const Kernels amx_kernels = [] {
  Kernels kernels = avx512vnni::kernels;
  kernels.name = "avx512amx";
  kernels.linear = avx512amx::linear;
  kernels.attend_codes = avx512amx::attend_codes;
  kernels.pack_value_digits = avx512amx::pack_value_digits;
  kernels.linear_scratch_bytes = std::max(kernels.linear_scratch_bytes, avx512amx::linear_scratch_bytes);
  return kernels;
}();
#endif

const Isa isas[] = {
// best first
#ifdef KE_ISA_AVX512AMX
    {"avx512amx", kAvx2 | kAvx512 | kAvx512Vnni | kAmxInt8, &amx_kernels, &avx512vnni::kv_code_kernels,
     &avx512vnni::kernels},
#endif
#ifdef KE_ISA_AVX512VNNI
    {"avx512vnni", kAvx2 | kAvx512 | kAvx512Vnni, &avx512vnni::kernels, &avx512vnni::kv_code_kernels},
#endif
#ifdef KE_ISA_AVXVNNI
    {"avxvnni", kAvx2 | kAvxVnni, &avxvnni::kernels, &avxvnni::kv_code_kernels},
#endif
#ifdef KE_ISA_AVX2
    {"avx2", kAvx2, &avx2::kernels, &avx2::kv_code_kernels},
#endif
#ifdef KE_ISA_NEONI8MM
    {"neoni8mm", kNeonDot | kNeonI8mm, &neoni8mm::kernels, &neoni8mm::kv_code_kernels},
#endif
#ifdef KE_ISA_NEONDOT
    {"neondot", kNeonDot, &neondot::kernels, &neondot::kv_code_kernels},
#endif
    {"scalar", 0, &scalar::kernels, &scalar::kv_code_kernels},
};

bool runs(const Isa& isa) { return (cpu_features() & isa.needs) == isa.needs; }

const Isa& isa_of(const Kernels& kernels) {
  const auto* found =
      std::find_if(std::begin(isas), std::end(isas), [&](const Isa& isa) { return isa.kernels == &kernels; });
  KE_ASSERT(found != std::end(isas));
  return *found;
}

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

bool isa_is_forced(const std::string& name) { return !name.empty() || std::getenv("KOSMOS_EDGE_ISA"); }

std::vector<OneRowKernel> one_row_kernels(const Kernels& kernels) {
  const Isa& own = isa_of(kernels);
  std::vector<OneRowKernel> found = {{own.one_row->name, kernels.panels, own.one_row->linear}};
  for (const Isa& isa : isas)
    if (runs(isa) && isa.needs && isa.one_row != own.one_row && isa.kernels->panels == kernels.panels)
      found.push_back({isa.name, kernels.panels, isa.one_row->linear});
#ifdef KE_ISA_AVX2BY4
  if (kernels.panels == 4 && (cpu_features() & kAvx2)) found.push_back({"avx2", 4, &avx2by4::linear});
#endif
  return found;
}

const KvCodeKernels& kv_code_kernels_of(const Kernels& kernels) { return *isa_of(kernels).kv_codes; }

}  // namespace ke::cpu
