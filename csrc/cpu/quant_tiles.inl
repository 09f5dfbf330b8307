// The tile kernels of quantized products: those that the instruction set names, else those for a four-product dot.
#pragma once
#ifdef KE_QUANT_TILES
#include KE_QUANT_TILES
#else
#include "cpu/quant_dot4.inl"
#endif
