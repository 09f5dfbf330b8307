// Products with many rows in tile registers (Intel AMX, Sapphire Rapids onwards), beside AVX-512's kernels for
// everything else. Only the unit in amx/ is compiled for it.
#pragma once
#define KE_ISA avx512amx
#define KE_NAME "avx512amx"
#include "cpu/vec_avx512.h"
