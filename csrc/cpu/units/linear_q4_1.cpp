// Products with Q4_1 weights.
#include "cpu/linear_quantized.inl"

namespace ke::cpu::KE_ISA {

void linear_q4_1(const LinearTask& task) { linear_quantized_as<FourBits<PanelType::Q4_1>, Blocks32<4, true>>(task); }

}  // namespace ke::cpu::KE_ISA
