// Products with Q4_0 weights.
#include "cpu/linear_quantized.inl"

namespace ke::cpu::KE_ISA {

void linear_q4_0(const LinearTask& task) { linear_quantized_as<FourBits<PanelType::Q4_0>, Blocks32<4, false>>(task); }

}  // namespace ke::cpu::KE_ISA
