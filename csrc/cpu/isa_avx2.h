// The kernels for AVX2, FMA and F16C (Haswell, Zen and later).
#pragma once
#define KE_ISA avx2
#define KE_NAME "avx2"
#define KE_QUANT_TILES "cpu/quant_madd_table.inl"
#include "cpu/vec_avx2.h"
