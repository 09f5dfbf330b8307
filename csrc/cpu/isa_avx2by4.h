// AVX2's products over groups of four panels, as AVX-512 has them: some processors multiply with one row faster so
// (one_row.h). Only the units of products are compiled for it.
#pragma once
#define KE_ISA avx2by4
#define KE_NAME "avx2"
#define KE_PANELS 4
#define KE_QUANT_TILES "cpu/quant_madd_table.inl"
#include "cpu/vec_avx2.h"
