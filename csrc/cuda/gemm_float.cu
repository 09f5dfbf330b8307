// Launches of GEMM with float weights.
#include "cuda/kernels.h"

#include "cuda/gemm_float.cuh"

namespace ke::cuda {

namespace {

template <FloatType T>
cudaError_t gemm(cudaStream_t stream, const FloatWeights& w, const Matrix& x, const Epilogue& epilogue) {
  const bool aligned = x.stride % 4 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
  const unsigned outputs = up(w.rows, kFloatOutputs * kWarps);
  if (x.rows == 1)
    return launch(stream, gemm_float_kernel<T, 1>, dim3{outputs, 1, 1}, kThreads, 0, w, x, aligned, epilogue);
  return launch(stream, gemm_float_kernel<T, 8>, dim3{outputs, up(x.rows, 8), 1}, kThreads, 0, w, x, aligned, epilogue);
}

}  // namespace

cudaError_t launch_gemm_float(cudaStream_t stream, const FloatWeights& w, const Matrix& x, const Epilogue& epilogue) {
  if (w.type == FloatType::F32) return gemm<FloatType::F32>(stream, w, x, epilogue);
  if (w.type == FloatType::F16) return gemm<FloatType::F16>(stream, w, x, epilogue);
  return gemm<FloatType::BF16>(stream, w, x, epilogue);
}

}  // namespace ke::cuda
