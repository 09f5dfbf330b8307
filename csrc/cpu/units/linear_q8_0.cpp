// Products with Q8_0 weights.
#include "cpu/linear_quantized.inl"

namespace ke::cpu::KE_ISA {

void linear_q8_0(const LinearTask& task) { linear_quantized_as<EightBits, Blocks32<8, false>>(task); }

}  // namespace ke::cpu::KE_ISA
