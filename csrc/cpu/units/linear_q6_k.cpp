// Products with Q6_K weights.
#include "cpu/linear_quantized.inl"

namespace ke::cpu::KE_ISA {

void linear_q6_k(const LinearTask& task) { linear_quantized_as<Q6_K, SubBlocks16<6>>(task); }

}  // namespace ke::cpu::KE_ISA
