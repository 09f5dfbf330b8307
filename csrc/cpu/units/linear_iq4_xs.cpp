// Products with IQ4_XS weights.
#include "cpu/linear_quantized.inl"

namespace ke::cpu::KE_ISA {

void linear_iq4_xs(const LinearTask& task) { linear_quantized_as<IQ4_XS, TableSubBlocks32>(task); }

}  // namespace ke::cpu::KE_ISA
