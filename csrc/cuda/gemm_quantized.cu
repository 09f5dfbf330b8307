// Launches of GEMM: products of quantized weights with many rows.
#include "cuda/kernels.h"

#include "cuda/gemm_quantized.cuh"

namespace ke::cuda {

namespace {

template <Format F>
cudaError_t gemm(cudaStream_t stream, const QuantizedWeights& w, const Codes& x, int64_t rows,
                 const Epilogue& epilogue) {
  return launch(stream, gemm_kernel<F>, dim3{up(rows, kTileRows), up(w.rows, kTileOutputs * kWarps), 1}, kThreads, 0, w,
                x, rows, epilogue);
}

}  // namespace

cudaError_t launch_gemm(cudaStream_t stream, const QuantizedWeights& w, const Codes& x, int64_t x_rows,
                        const Epilogue& epilogue) {
  switch (w.format) {
    case Format::Q2_K:
      return gemm<Format::Q2_K>(stream, w, x, x_rows, epilogue);
    case Format::Q3_K:
      return gemm<Format::Q3_K>(stream, w, x, x_rows, epilogue);
    case Format::Q4_K:
      return gemm<Format::Q4_K>(stream, w, x, x_rows, epilogue);
    case Format::Q5_K:
      return gemm<Format::Q5_K>(stream, w, x, x_rows, epilogue);
    case Format::Q6_K:
      return gemm<Format::Q6_K>(stream, w, x, x_rows, epilogue);
    case Format::Q8_0:
      return gemm<Format::Q8_0>(stream, w, x, x_rows, epilogue);
    case Format::IQ4_NL:
      return gemm<Format::IQ4_NL>(stream, w, x, x_rows, epilogue);
    case Format::IQ4_XS:
      return gemm<Format::IQ4_XS>(stream, w, x, x_rows, epilogue);
    case Format::I8:
      return gemm<Format::I8>(stream, w, x, x_rows, epilogue);
    default:
      return gemm<Format::Q4_0>(stream, w, x, x_rows, epilogue);
  }
}

}  // namespace ke::cuda
