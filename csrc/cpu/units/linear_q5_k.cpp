// Products with Q5_K weights.
#include "cpu/linear_quantized.inl"

namespace ke::cpu::KE_ISA {

void linear_q5_k(const LinearTask& task) { linear_quantized_as<Q5_K, SubBlocks32<5>>(task); }

}  // namespace ke::cpu::KE_ISA
