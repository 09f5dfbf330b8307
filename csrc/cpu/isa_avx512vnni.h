// The kernels for AVX-512 with VNNI (Ice Lake and Zen 4 onwards).
#pragma once
#define KE_ISA avx512vnni
#define KE_NAME "avx512vnni"
#include "cpu/vec_avx512.h"
