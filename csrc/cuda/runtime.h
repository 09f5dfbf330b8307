// CUDA's runtime interface. tests/emulate/cuda/runtime.h takes this header's place to run the backend without a card.
#pragma once
#include <cuda_runtime.h>

namespace ke::cuda {

constexpr char kDeviceName[] = "cuda";  // "cuda:0" is the first device

}  // namespace ke::cuda
