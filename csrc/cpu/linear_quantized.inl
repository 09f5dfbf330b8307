// Matrix products with quantized weights and activations quantized per row and block: integer sums, exact; one
// floating-point combination per block in a fixed order (quant_dot4.inl has the definition).
#pragma once
#include "cpu/linear_float.inl"
#include "cpu/quant_tiles.inl"

namespace ke::cpu::KE_ISA {
namespace {

// acc (rows, 16 kPanels) += one block of the group times rows row0 .. row1 - 1 of x. weights(P, first, t, Ahead) gives
// the weights of P panels from `first` on for tile t, of up to Cols rows; Ahead: 1 for the first tile.
template <class Tiles, int Cols, class Weights>
KE_INLINE void tiles_of_block(const Packed& x, int64_t b, int64_t row0, int64_t row1, float* acc, Weights weights) {
  const int64_t n = row1 - row0, tiles = tile_count(n, Cols);
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t at = tile_start(n, Cols, t);
    for_columns<Cols>(static_cast<int>(tile_start(n, Cols, t + 1) - at), [&]<int C>() {
      constexpr int P = tile_panels(C);
      for (int first = 0; first < kPanels; first += P) {
        const TileX tile = tile_x(x, b, row0 + at);
        float* to = acc + at * 16 * kPanels + 16 * first;
        if (t == 0)
          Tiles::template tile<P, C>(weights(Const<P>(), first, t, Const<1>()), tile, x.block, to, 16 * kPanels);
        else
          Tiles::template tile<P, C>(weights(Const<P>(), first, t, Const<0>()), tile, x.block, to, 16 * kPanels);
      }
    });
  }
}

// Rows of x up to which unpacking in registers beats unpacking once.
static constexpr int direct_rows(PanelType type) {
  if (type == PanelType::I8) return INT32_MAX;  // there is nothing to unpack
  if (type == PanelType::Q8_0) return kDirectRows;
  const bool four_bits = type == PanelType::Q4_K || type == PanelType::Q4_0 || type == PanelType::Q4_1 ||
                         type == PanelType::IQ4_NL || type == PanelType::IQ4_XS;
  return four_bits ? kDirectRows4 : kDirectRows6;
}

template <class Format, class Tiles>
void linear_quantized_as(const LinearTask& task) {
  const Packed& x = *task.x;
  auto* w = reinterpret_cast<Unpacked*>(task.scratch);
  float* acc = reinterpret_cast<float*>(task.scratch + sizeof(Unpacked) * kPanels);
  const int64_t blocks = x.cols / x.block;
  for (int64_t t0 = task.tile_begin; t0 < task.tile_end; t0 += kTilesAtOnce) {
    const int64_t t1 = t0 + kTilesAtOnce < task.tile_end ? t0 + kTilesAtOnce : task.tile_end;
    const int64_t row0 = tile_start(x.rows, kTileCols, t0), row1 = tile_start(x.rows, kTileCols, t1);
    for (int64_t i = 0; i < (row1 - row0) * 16 * kPanels; i += 16) store(acc + i, set1(-0.0f));  // -0 + x is x
    constexpr int direct = direct_rows(Format::type), direct_cols = direct < kQuantCols ? direct : kQuantCols;
    for (int64_t b = 0; b < blocks; ++b)
      if (row1 - row0 <= direct) {
        if constexpr (direct > 0)
          tiles_of_block<Tiles, direct_cols>(x, b, row0, row1, acc,
                                             [&]<int P, int A>(Const<P>, int first, int64_t, Const<A>) KE_LAMBDA {
                                               return FromPanels<Format, P, A>(task.group, b, x.block, first);
                                             });
      } else if constexpr (direct < INT32_MAX) {
        const FromPanels<Format, kPanels, false> from(task.group, b, x.block, 0);
        const int bytes = x.block / panel_layout(Format::type).values * from.step;
        const int64_t tiles = tile_count(row1 - row0, kQuantCols);
        unpack(from, x.block, w);
        tiles_of_block<Tiles, kQuantCols>(
            x, b, row0, row1, acc, [&]<int P, int A>(Const<P>, int first, int64_t t, Const<A>) KE_LAMBDA {
              if (first == 0)
                prefetch(from.later, static_cast<int>(bytes * t / tiles), static_cast<int>(bytes * (t + 1) / tiles));
              return FromScratch{w + first, Format::sub_blocks, Format::offset};
            });
      }
    finish_rows(task, acc, row0, row1);
  }
}

constexpr int64_t kQuantScratch = sizeof(Unpacked) * kPanels;
constexpr int64_t kLinearScratch = kQuantScratch + kTilesAtOnce * kTileCols * kPanels * 16 * 4;

}  // namespace
}  // namespace ke::cpu::KE_ISA
