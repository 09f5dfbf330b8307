// Launches of GEMV: products of quantized weights with few rows.
#include "cuda/kernels.h"

#include "cuda/gemv_quantized.cuh"

namespace ke::cuda {

namespace {

template <Format F>
cudaError_t gemv(cudaStream_t stream, const QuantizedWeights& w, const Matrix& x, const NormWeights& norm,
                 const Epilogue& epilogue) {
  const int outputs = kGemvPanels * unit_grid(w.blocks).rows;
  const size_t shared = gemv_shared_bytes({static_cast<int>(x.rows), static_cast<int>(w.blocks), outputs});
  return launch(stream, gemv_kernel<F>, dim3{up(w.rows, outputs), 1, 1}, kThreads, shared, w, x, norm, epilogue);
}

}  // namespace

int max_gemv_rows(int64_t blocks) {
  int rows = 0;
  const int outputs = kGemvPanels * unit_grid(blocks).rows;
  while (rows < kMaxGemvRows && gemv_shared_bytes({rows + 1, static_cast<int>(blocks), outputs}) <= kGemvShared) rows++;
  return rows;
}

cudaError_t launch_gemv(cudaStream_t stream, const QuantizedWeights& w, const Matrix& x, const NormWeights& norm,
                        const Epilogue& epilogue) {
  switch (w.format) {
    case Format::Q2_K:
      return gemv<Format::Q2_K>(stream, w, x, norm, epilogue);
    case Format::Q3_K:
      return gemv<Format::Q3_K>(stream, w, x, norm, epilogue);
    case Format::Q4_K:
      return gemv<Format::Q4_K>(stream, w, x, norm, epilogue);
    case Format::Q5_K:
      return gemv<Format::Q5_K>(stream, w, x, norm, epilogue);
    case Format::Q6_K:
      return gemv<Format::Q6_K>(stream, w, x, norm, epilogue);
    case Format::Q8_0:
      return gemv<Format::Q8_0>(stream, w, x, norm, epilogue);
    case Format::IQ4_NL:
      return gemv<Format::IQ4_NL>(stream, w, x, norm, epilogue);
    case Format::IQ4_XS:
      return gemv<Format::IQ4_XS>(stream, w, x, norm, epilogue);
    case Format::I8:
      return gemv<Format::I8>(stream, w, x, norm, epilogue);
    default:
      return gemv<Format::Q4_0>(stream, w, x, norm, epilogue);
  }
}

}  // namespace ke::cuda
