// Products with Q3_K weights.
#include "cpu/linear_quantized.inl"

namespace ke::cpu::KE_ISA {

void linear_q3_k(const LinearTask& task) { linear_quantized_as<Q3_K, SubBlocks16<3>>(task); }

}  // namespace ke::cpu::KE_ISA
