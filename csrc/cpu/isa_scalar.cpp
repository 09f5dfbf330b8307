// The kernels in plain C++: the definition, and the fallback for any processor.
#define KE_ISA scalar
#define KE_NAME "scalar"
#include "cpu/vec_scalar.h"

#include "cpu/kernels.inl"
