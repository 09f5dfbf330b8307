// Weights on the device.
#pragma once
#include <functional>
#include <vector>

#include "backend/backend.h"
#include "cuda/kernels.h"
#include "cuda/memory.h"

namespace ke::cuda {

class CudaLinear final : public Linear {
 public:
  // Neighbouring parts of one format, as one matrix.
  struct Segment {
    int64_t first = 0;  // output row of the whole
    bool quantized = false;
    QuantizedWeights codes{};
    FloatWeights floats{};
    DeviceMemory memory;
  };
  std::vector<Segment> segments;
  DeviceMemory bias;  // (out), or empty
  std::function<void()> before_free;
  ~CudaLinear() override {
    if (before_free) before_free();
  }
};

// See Backend::upload. Work is put on the stream and waited for, piece by piece.
std::unique_ptr<CudaLinear> upload_linear(cudaStream_t stream, const std::vector<Tensor>& parts, const float* bias,
                                          MatmulUse use);

}  // namespace ke::cuda
