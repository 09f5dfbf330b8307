// Products with Q5_1 weights.
#include "cpu/linear_quantized.inl"

namespace ke::cpu::KE_ISA {

void linear_q5_1(const LinearTask& task) { linear_quantized_as<FiveBits<PanelType::Q5_1>, Blocks32<5, true>>(task); }

}  // namespace ke::cpu::KE_ISA
