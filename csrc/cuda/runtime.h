// CUDA's runtime interface: the toolkit's, or the one that runs on the processor (KE_CUDA_EMULATED).
#pragma once
#ifdef KE_CUDA_EMULATED
#include "cuda/emulate/runtime.h"
#else
#include <cuda_runtime.h>
#endif
