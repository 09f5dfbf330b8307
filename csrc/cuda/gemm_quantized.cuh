// GEMM: y = act(x W^T + b) + residual for many rows of x, on the tensor cores: products of signed bytes with int32 sums
// (mma.m16n8k32), one instruction per sub-block of 32, whose integer scale multiplies the sum. A warp computes 16
// outputs of 32 rows of x; a block of the launch has four warps, which share the rows' codes.
#pragma once
#include "cuda/decode.cuh"
#include "cuda/rows.cuh"

namespace ke::cuda {

constexpr int kTileRows = 32;             // rows of x
constexpr int kTileOutputs = 16;          // per warp
constexpr int kRowTiles = kTileRows / 8;  // an instruction takes 8 rows of x
constexpr int kTileStride = kBlock + 16;  // bytes between rows: their dwords lie in different banks

// One block of 256 of the rows of a tile.
struct RowTile {
  alignas(16) int8_t codes[kTileRows][kTileStride];
  alignas(16) int8_t sums[kTileRows][16];
  float scales[kTileRows];
};
using RowTiles = RowTile[2];

// Block b of rows `first` .. of x, zeros where there are none; on its way until wait_async() and a barrier are past.
__device__ __forceinline__ void fetch_rows(RowTile& to, const Codes& x, int64_t rows, int64_t blocks, int64_t first,
                                           int64_t b) {
  for (int i = threadIdx.x; i < kTileRows * (kBlock / 16); i += kThreads) {
    const int r = i / (kBlock / 16), piece = i % (kBlock / 16) * 16;
    if (first + r < rows)
      copy_async(&to.codes[r][piece], x.codes + ((first + r) * blocks + b) * kBlock + piece);
    else
      *reinterpret_cast<uint4*>(&to.codes[r][piece]) = uint4{0, 0, 0, 0};
  }
  if (threadIdx.x < kTileRows) {
    const int r = threadIdx.x;
    const bool there = first + r < rows;
    *reinterpret_cast<uint4*>(to.sums[r]) =
        there ? *reinterpret_cast<const uint4*>(x.sums + ((first + r) * blocks + b) * 16) : uint4{0, 0, 0, 0};
    to.scales[r] = there ? x.scales[(first + r) * blocks + b] : 0.0f;
  }
}

// What a thread reads of one output's block: `chunks` is lane `lane`'s first 16 bytes in its unit.
template <Format F>
struct OutputBlock {
  const uint8_t* unit;
  int lane;
  __device__ __forceinline__ uint32_t word(int chunk, int i) const {
    return reinterpret_cast<const uint32_t*>(unit)[(chunk * kLanes + lane) * 4 + i];
  }
  __device__ __forceinline__ uint32_t tail() const {
    if constexpr (F == Format::IQ4_XS) return word(kScaleChunk<F>, 2);
    return reinterpret_cast<const uint32_t*>(unit)[format_layout(F).chunks * kLanes * 4 + lane];
  }
  // Values 4 t .. and 16 + 4 t .. of sub-block s.
  __device__ __forceinline__ void codes(int s, int t, uint32_t& low, uint32_t& high) const {
    uint32_t both[2] = {0, 0}, upper[2] = {0, 0};
    if constexpr (kTwoBits<F>) {
      both[0] = word(s / 2, s % 2 * 2), both[1] = word(s / 2, s % 2 * 2 + 1);
    } else {
      both[0] = word(kCodeChunks<F> * s, t), both[1] = kCodeChunks<F> == 2 ? word(2 * s + 1, t) : 0;
    }
    if constexpr (F == Format::Q3_K) upper[0] = word(4 + s / 4, s % 4);
    if constexpr (F == Format::Q5_K) upper[0] = word(8 + s / 4, s % 4);
    if constexpr (F == Format::Q6_K) upper[0] = word(8 + s / 2, s % 2 * 2), upper[1] = word(8 + s / 2, s % 2 * 2 + 1);
    unpack<F>(both, upper, t, low, high);
  }
};

template <Format F>
__global__ void __launch_bounds__(kThreads, 4)
    gemm_kernel(QuantizedWeights w, Codes x, int64_t x_rows, Epilogue epilogue) {
  KE_SHARED(RowTiles, tiles);
  const UnitGrid grid = unit_grid(w.blocks);
  const int64_t first_row = int64_t{blockIdx.x} * kTileRows;
  const int64_t first_output = (int64_t{blockIdx.y} * kWarps + threadIdx.x / 32) * kTileOutputs;
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

  // This thread's two outputs, g and g + 8 of the warp's; those behind the last are computed as the last and dropped.
  const uint8_t* panel[2];
  int row_in_panel[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    int64_t output = first_output + g + 8 * h;
    if (output >= w.rows) output = w.rows - 1;
    panel[h] = w.data + output / grid.rows * grid.steps * unit_bytes(F);
    row_in_panel[h] = static_cast<int>(output % grid.rows);
  }

  float sum[kRowTiles][4] = {};
  fetch_rows(tiles[0], x, x_rows, w.blocks, first_row, 0);
  for (int64_t b = 0; b < w.blocks; b++) {
    wait_async();
    __syncthreads();  // block b is there, and nobody reads block b - 1 any more
    const RowTile& tile = tiles[b & 1];
    if (b + 1 < w.blocks) fetch_rows(tiles[(b + 1) & 1], x, x_rows, w.blocks, first_row, b + 1);

    OutputBlock<F> out[2];
#pragma unroll
    for (int h = 0; h < 2; h++)
      out[h] = {panel[h] + b / grid.row_lanes * unit_bytes(F),
                static_cast<int>(b % grid.row_lanes) * grid.rows + row_in_panel[h]};

    int total[kRowTiles][4] = {}, low[kRowTiles][4] = {};  // low: mins times sums
    float value[kRowTiles][4] = {};
#pragma unroll 2
    for (int s = 0; s < 8; s++) {
      uint32_t a[4];
      out[0].codes(s, t, a[0], a[2]);
      out[1].codes(s, t, a[1], a[3]);
      uint32_t scales[2] = {0, 0};  // of the sub-block: bytes or float16 of the two outputs
#pragma unroll
      for (int h = 0; h < 2 && F != Format::I8; h++)
        scales[h] = out[h].word(kScaleChunk<F>, kScales32<F> ? s / 4 : s / 2);
#pragma unroll
      for (int n = 0; n < kRowTiles; n++) {
        const uint32_t* codes = reinterpret_cast<const uint32_t*>(&tile.codes[8 * n + g][32 * s]);
        const uint32_t xs[2] = {codes[t], codes[4 + t]};
        if constexpr (kScales16<F>) {  // a scale per 16
#pragma unroll
          for (int k = 0; k < 2; k++) {
            const uint32_t half[2] = {a[2 * k], a[2 * k + 1]};
            int dot[4] = {};
            mma_s8_k16(dot, half, xs[k]);
#pragma unroll
            for (int i = 0; i < 4; i++) total[n][i] += dot[i] * scale16<F>(scales[i / 2], s % 2 * 2 + k);
            if constexpr (kMins16<F>) {
              const uint32_t mins[2] = {min16(scales[0], s % 2 * 2 + k) * 0x01010101u,
                                        min16(scales[1], s % 2 * 2 + k) * 0x01010101u};
              mma_s8_k16(low[n], mins, xs[k]);
            }
          }
        } else if constexpr (F == Format::I8) {
          mma_s8_k32(total[n], a, xs);
        } else {
          int dot[4] = {};
          mma_s8_k32(dot, a, xs);
#pragma unroll
          for (int i = 0; i < 4; i++) {
            if constexpr (kScales32<F>) {
              total[n][i] += dot[i] * signed_byte(scales[i / 2], s % 4);
            } else {
              const float d = from_half(static_cast<uint16_t>(scales[i / 2] >> (s % 2 * 16)));
              value[n][i] = __fadd_rn(value[n][i], __fmul_rn(__int2float_rn(dot[i]), d));
            }
          }
        }
      }
    }

    uint32_t tail[2] = {0, 0};
    if constexpr (!kFloatScales<F>) tail[0] = out[0].tail(), tail[1] = out[1].tail();
#pragma unroll
    for (int n = 0; n < kRowTiles; n++) {
      if constexpr (!kFloatScales<F>) {
#pragma unroll
        for (int i = 0; i < 4; i++) value[n][i] = __fmul_rn(__int2float_rn(total[n][i]), block_scale<F>(tail[i / 2]));
      }
      if constexpr (kAffine<F>) {  // the mins times the sums of 32, eight of each, as a product with k = 16
        uint32_t mins[2], sums[2];
#pragma unroll
        for (int h = 0; h < 2; h++) mins[h] = t < 2 ? out[h].word(kScaleChunk<F>, 2 + t) : 0;
        const uint32_t* parts = reinterpret_cast<const uint32_t*>(tile.sums[8 * n + g]);
        sums[0] = t < 2 ? parts[t] : 0, sums[1] = t < 2 ? parts[2 + t] : 0;
        mma_s8_k16(low[n], mins, sums[0]);
#pragma unroll
        for (int i = 0; i < 4; i++) low[n][i] *= 64;
        mma_s8_k16(low[n], mins, sums[1]);
      }
      if constexpr (kAffine<F> || kMins16<F>) {
#pragma unroll
        for (int i = 0; i < 4; i++)
          value[n][i] = __fsub_rn(
              value[n][i], __fmul_rn(__int2float_rn(low[n][i]), from_half(static_cast<uint16_t>(tail[i / 2] >> 16))));
      }
#pragma unroll
      for (int i = 0; i < 4; i++)
        sum[n][i] = __fadd_rn(sum[n][i], __fmul_rn(value[n][i], tile.scales[8 * n + 2 * t + i % 2]));
    }
  }

#pragma unroll
  for (int n = 0; n < kRowTiles; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int64_t row = first_row + 8 * n + 2 * t + i % 2, output = first_output + g + i / 2 * 8;
      if (row < x_rows && output < w.rows) finish(epilogue, sum[n][i], row, output);
    }
}

}  // namespace ke::cuda
