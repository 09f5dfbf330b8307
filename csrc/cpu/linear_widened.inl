// Products of 16-bit float weights with many rows: linear_float's sums in linear_float's order, but a chunk of weights
// is widened to float32 once for all tiles, because widening takes the ports that the products need.
#pragma once
#include "cpu/linear_float.inl"

namespace ke::cpu::KE_ISA {
namespace {

constexpr int64_t kWidenTiles = 3;  // from so many tiles on it pays
constexpr int64_t kAccFloats = kTilesAtOnce * kTileCols * kPanels * 16;
constexpr int64_t kWidenedScratch = (kAccFloats + kFloatChunk * kPanels * 16) * 4;

// Tiles t0 .. t1 - 1, at most kTilesAtOnce.
template <class W>
inline void widened_tiles(const LinearTask& task, int64_t t0, int64_t t1) {
  constexpr int P = kPanels;
  const Packed& x = *task.x;
  const auto* weights = reinterpret_cast<const typename W::Stored*>(task.group);
  float *acc = reinterpret_cast<float*>(task.scratch), *widened = acc + kAccFloats;
  const int64_t row0 = tile_start(x.rows, kTileCols, t0);
  for (int64_t k = 0; k < x.cols; k += kFloatChunk) {
    const int64_t n = x.cols - k < kFloatChunk ? x.cols - k : kFloatChunk;
    for (int64_t i = 0; i < n * P; ++i) store(widened + i * 16, W::get(weights + (k * P + i) * 16));
    for (int64_t t = t0; t < t1; ++t) {
      const int64_t row = tile_start(x.rows, kTileCols, t);
      const int cols = static_cast<int>(tile_start(x.rows, kTileCols, t + 1) - row);
      const ChunkTile values{x.values + k * x.rows + row * kFloatChunk};
      float* a = acc + (row - row0) * 16 * P;
      for_columns<kTileCols>(cols, [&]<int C>() {
        float_chunk<P, C>(GroupedPanels<F32Weights, P>{widened}, n, values, a, 16 * P, k == 0);
      });
    }
  }
  finish_rows(task, acc, row0, tile_start(x.rows, kTileCols, t1));
}

template <class W>
void linear_widened(const LinearTask& task) {
  if (task.tile_end - task.tile_begin < kWidenTiles) return linear_float<W>(task);
  for (int64_t t = task.tile_begin; t < task.tile_end; t += kTilesAtOnce)
    widened_tiles<W>(task, t, t + kTilesAtOnce < task.tile_end ? t + kTilesAtOnce : task.tile_end);
}

}  // namespace
}  // namespace ke::cpu::KE_ISA
