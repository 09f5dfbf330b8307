// The kernels for AVX2 with AVX-VNNI (Alder Lake, Zen 5 and later; many of them have no AVX-512).
#pragma once
#define KE_ISA avxvnni
#define KE_NAME "avxvnni"
#include "cpu/vec_avxvnni.h"
