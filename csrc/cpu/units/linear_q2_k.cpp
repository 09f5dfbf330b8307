// Products with Q2_K weights.
#include "cpu/linear_quantized.inl"

namespace ke::cpu::KE_ISA {

void linear_q2_k(const LinearTask& task) { linear_quantized_as<Q2_K, AffineSubBlocks16>(task); }

}  // namespace ke::cpu::KE_ISA
