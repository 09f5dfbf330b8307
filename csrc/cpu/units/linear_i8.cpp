// Products with I8 weights, where the instruction set is faster with them (kPrefersI8).
#include "cpu/linear_quantized.inl"

namespace ke::cpu::KE_ISA {

#ifndef KE_QUANT_TILES
void linear_i8(const LinearTask& task) { linear_quantized_as<EightBits256, WholeBlocks>(task); }
#endif

}  // namespace ke::cpu::KE_ISA
