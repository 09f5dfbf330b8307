// Products with Q5_0 weights.
#include "cpu/linear_quantized.inl"

namespace ke::cpu::KE_ISA {

void linear_q5_0(const LinearTask& task) { linear_quantized_as<FiveBits<PanelType::Q5_0>, Blocks32<5, false>>(task); }

}  // namespace ke::cpu::KE_ISA
