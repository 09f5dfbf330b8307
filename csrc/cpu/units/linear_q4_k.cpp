// Products with Q4_K weights.
#include "cpu/linear_quantized.inl"

namespace ke::cpu::KE_ISA {

void linear_q4_k(const LinearTask& task) { linear_quantized_as<Q4_K, SubBlocks32<4>>(task); }

}  // namespace ke::cpu::KE_ISA
