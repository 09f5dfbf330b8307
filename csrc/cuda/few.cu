// Launches of products with few rows.
#include "cuda/kernels.h"

#include "cuda/linear_few.cuh"

namespace ke::cuda {

namespace {

template <Format F>
cudaError_t few(cudaStream_t stream, const QuantizedWeights& w, const Matrix& x, const NormWeights& norm,
                const Epilogue& epilogue) {
  const int outputs = kFewPanels * unit_grid(w.blocks).rows;
  const size_t shared = few_shared_bytes({static_cast<int>(x.rows), static_cast<int>(w.blocks), outputs});
  return launch(stream, few_kernel<F>, dim3{up(w.rows, outputs), 1, 1}, kThreads, shared, w, x, norm, epilogue);
}

}  // namespace

int few_rows(int64_t blocks) {
  int rows = 0;
  const int outputs = kFewPanels * unit_grid(blocks).rows;
  while (rows < kMostFewRows && few_shared_bytes({rows + 1, static_cast<int>(blocks), outputs}) <= kFewShared) rows++;
  return rows;
}

cudaError_t launch_few(cudaStream_t stream, const QuantizedWeights& w, const Matrix& x, const NormWeights& norm,
                       const Epilogue& epilogue) {
  switch (w.format) {
    case Format::Q4_K:
      return few<Format::Q4_K>(stream, w, x, norm, epilogue);
    case Format::Q5_K:
      return few<Format::Q5_K>(stream, w, x, norm, epilogue);
    case Format::Q6_K:
      return few<Format::Q6_K>(stream, w, x, norm, epilogue);
    case Format::Q8_0:
      return few<Format::Q8_0>(stream, w, x, norm, epilogue);
    case Format::I8:
      return few<Format::I8>(stream, w, x, norm, epilogue);
    default:
      return few<Format::Q4_0>(stream, w, x, norm, epilogue);
  }
}

}  // namespace ke::cuda
