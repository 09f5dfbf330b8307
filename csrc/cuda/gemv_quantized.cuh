// GEMV (and skinny GEMM): y = act(x W^T + b) + residual for few rows of x: bound by the bytes of W. Every block of the
// launch normalises and quantizes x for itself into shared memory, so that a decoded token's product is one launch; its
// first weights are on their way meanwhile, as they do not depend on x.
#pragma once
#include "cuda/decode.cuh"
#include "cuda/rows.cuh"

namespace ke::cuda {

constexpr int kGemvPanels = 4;             // panels of rows that a block of the launch computes
constexpr int kCodesStride = kBlock + 16;  // bytes: neighbouring blocks' codes lie in different banks
constexpr size_t kGemvShared = 46 << 10;   // of shared memory
constexpr int kMaxGemvRows = 8;

struct GemvShape {
  int rows;     // of x
  int blocks;   // of a row
  int outputs;  // of a block of the launch
};

// Shared memory: codes [row][block][kCodesStride], sums [row][block][16], scales [row][block], then the products of
// blocks [row][output][blocks + 1].
constexpr size_t gemv_shared_bytes(GemvShape s) {
  return static_cast<size_t>(s.rows) *
         (s.blocks * (kCodesStride + 16 + sizeof(float)) + s.outputs * (s.blocks + 1) * sizeof(float));
}

template <Format F>
__global__ void __launch_bounds__(kThreads, 2)
    gemv_kernel(QuantizedWeights w, Matrix x, NormWeights norm, Epilogue epilogue) {
  KE_SHARED(Partial, partial);
  KE_DYNAMIC_SHARED(int8_t, memory);
  const UnitGrid grid = unit_grid(w.blocks);
  const int blocks = static_cast<int>(w.blocks), rows = static_cast<int>(x.rows), outputs = kGemvPanels * grid.rows;
  int8_t* codes = memory;
  int8_t* sums = codes + rows * blocks * kCodesStride;
  float* scales = reinterpret_cast<float*>(sums + rows * blocks * 16);
  float* products = scales + rows * blocks;

  const int64_t panels = panel_count(w.rows, w.blocks), first_panel = blockIdx.x * int64_t{kGemvPanels};
  const int64_t here = panels - first_panel;
  const int units = (here < kGemvPanels ? static_cast<int>(here) : kGemvPanels) * grid.steps;
  const uint8_t* data = w.data + first_panel * grid.steps * unit_bytes(F);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  LaneBlock<F> block;
  if (warp < units) block.load(data + warp * unit_bytes(F), lane);

#pragma unroll 1
  for (int r = 0; r < rows; r++)
    quantize_row(x.data + r * x.stride, blocks, norm, partial, codes + r * blocks * kCodesStride, kCodesStride,
                 scales + r * blocks, sums + r * blocks * 16);
  __syncthreads();

  for (int unit = warp; unit < units; unit += kWarps) {
    if (unit != warp) block.load(data + unit * unit_bytes(F), lane);
    const int output = unit / grid.steps * grid.rows + lane % grid.rows;
    const int b = unit % grid.steps * grid.row_lanes + lane / grid.rows;
#pragma unroll 1
    for (int r = 0; r < rows; r++)
      products[(r * outputs + output) * (blocks + 1) + b] =
          block.times(codes + (r * blocks + b) * kCodesStride, sums + (r * blocks + b) * 16);
  }
  __syncthreads();

  const int64_t first_output = first_panel * grid.rows;
  for (int i = threadIdx.x; i < rows * outputs; i += kThreads) {
    const int r = i / outputs, output = i % outputs;
    if (first_output + output >= w.rows) continue;
    float sum = 0;
    for (int b = 0; b < blocks; b++)
      sum = __fadd_rn(sum, __fmul_rn(products[i * (blocks + 1) + b], scales[r * blocks + b]));
    finish(epilogue, sum, r, first_output + output);
  }
}

}  // namespace ke::cuda
