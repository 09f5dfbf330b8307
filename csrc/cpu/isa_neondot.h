// The kernels for 64-bit ARM with the dot-product extension (Cortex-A75, A76, Apple M1 and later).
#pragma once
#define KE_ISA neondot
#define KE_NAME "neondot"
#include "cpu/vec_neon.h"
