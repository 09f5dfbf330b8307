// The kernels in plain C++: the definition, and the fallback for any processor.
#pragma once
#define KE_ISA scalar
#define KE_NAME "scalar"
#include "cpu/vec_scalar.h"
