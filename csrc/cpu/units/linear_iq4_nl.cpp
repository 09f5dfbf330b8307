// Products with IQ4_NL weights.
#include "cpu/linear_quantized.inl"

namespace ke::cpu::KE_ISA {

void linear_iq4_nl(const LinearTask& task) { linear_quantized_as<IQ4_NL, TableBlocks32>(task); }

}  // namespace ke::cpu::KE_ISA
