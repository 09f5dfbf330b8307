// Launches of products with many rows.
#include "cuda/kernels.h"

#include "cuda/linear_many.cuh"

namespace ke::cuda {

namespace {

template <Format F>
cudaError_t many(cudaStream_t stream, const QuantizedWeights& w, const Codes& x, int64_t rows,
                 const Epilogue& epilogue) {
  return launch(stream, many_kernel<F>, dim3{up(rows, kTileRows), up(w.rows, kTileOutputs * kWarps), 1}, kThreads, 0, w,
                x, rows, epilogue);
}

}  // namespace

cudaError_t launch_many(cudaStream_t stream, const QuantizedWeights& w, const Codes& x, int64_t x_rows,
                        const Epilogue& epilogue) {
  switch (w.format) {
    case Format::Q4_K:
      return many<Format::Q4_K>(stream, w, x, x_rows, epilogue);
    case Format::Q5_K:
      return many<Format::Q5_K>(stream, w, x, x_rows, epilogue);
    case Format::Q6_K:
      return many<Format::Q6_K>(stream, w, x, x_rows, epilogue);
    case Format::Q8_0:
      return many<Format::Q8_0>(stream, w, x, x_rows, epilogue);
    case Format::I8:
      return many<Format::I8>(stream, w, x, x_rows, epilogue);
    default:
      return many<Format::Q4_0>(stream, w, x, x_rows, epilogue);
  }
}

}  // namespace ke::cuda
