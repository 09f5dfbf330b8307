// The kernels for 64-bit ARM with the dot-product and int8 matrix extensions (Cortex-X2, A715, Neoverse V1, Apple M2
// and later).
#pragma once
#define KE_ISA neoni8mm
#define KE_NAME "neoni8mm"
#include "cpu/vec_neon.h"
