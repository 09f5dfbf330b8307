// Products with float weights.
#include "cpu/linear_widened.inl"

namespace ke::cpu::KE_ISA {

void linear_f32(const LinearTask& task) { linear_float<F32Weights>(task); }
void linear_f16(const LinearTask& task) { linear_widened<F16Weights>(task); }
void linear_bf16(const LinearTask& task) { linear_widened<BF16Weights>(task); }

}  // namespace ke::cpu::KE_ISA
