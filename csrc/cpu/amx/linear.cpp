// Products of quantized weights with many rows in tile registers; AVX-512's products do the rest.
#include "cpu/amx/weights.inl"
#include "cpu/linear_float.inl"

namespace ke::cpu::avx512vnni {
void linear(const LinearTask* task);
}

namespace ke::cpu::KE_ISA {

namespace {

constexpr int64_t kLeastRows = 16;                 // for fewer, unpacking takes longer than it saves
constexpr int64_t kSumsAtOnce = kTilesAtOnce * 6;  // rows whose sums are kept while the blocks pass by

// Up to R tiles of rows times P panels.
struct Step {
  int64_t tile;  // of rows
  int row_tiles, panel;
};

// One block of a group for rows row0 .. row0 + n - 1 of x; acc: (n, 16 kPanels).
template <class W>
class BlockProduct {
 public:
  using From = FromPanels<typename W::Source, kPanels, false>;
  static constexpr int kStepSums = W::row_tiles * W::panels * W::planes * kTileRows * 16;

  BlockProduct(const Packed& x, int64_t row0, int64_t n, float* acc, int32_t* sums)
      : x_(x),
        row0_(row0),
        n_(n),
        rows_(n < kTileRows ? n : kTileRows),
        tiles_((n + kTileRows - 1) / kTileRows),
        acc_(acc),
        sums_(sums) {}

  void run(const From& from, const uint8_t* unpacked, int64_t block) const {
    constexpr int across = kPanels / W::panels;
    const int steps = static_cast<int>(tile_count(tiles_, W::row_tiles)) * across;
    Step before{0, 0, 0};
    for (int s = 0; s < steps; ++s) {
      const int64_t tile = s / across * W::row_tiles, left = tiles_ - tile;
      const Step step{tile, left < W::row_tiles ? static_cast<int>(left) : W::row_tiles, s % across * W::panels};
      prefetch(from.later, from.step * s / steps, from.step * (s + 1) / steps);
      int32_t *sums = sums_ + s % 2 * kStepSums, *sums_before = sums_ + (s + 1) % 2 * kStepSums;
      if (step.row_tiles == W::row_tiles)
        multiply<W::row_tiles>(from, unpacked, block, step, sums, before, sums_before);
      else
        multiply<1>(from, unpacked, block, step, sums, before, sums_before);
      before = step;
    }
    for (int part = 0; part < kParts; ++part) combine(from, block, before, sums_ + (steps + 1) % 2 * kStepSums, part);
  }

 private:
  static constexpr int kParts = kBlock / kTileDepth, kPartRows = kTileRows / kParts;

  // The last tile begins earlier than it would, so that all have the same number of rows.
  int64_t start(int64_t tile) const { return tile * kTileRows < n_ - rows_ ? tile * kTileRows : n_ - rows_; }

  // The integer sums of a step. In between, what the step before has summed is combined: the tile unit is a unit of its
  // own, but the processor looks only some hundred instructions ahead.
  template <int R>
  KE_INLINE void multiply(const From& from, const uint8_t* unpacked, int64_t block, const Step& step, int32_t* sums,
                          const Step& before, const int32_t* sums_before) const {
    constexpr int P = W::panels, N = W::planes, kX = W::row_tiles * P * N, kW = kX + W::row_tiles;
    static_assert(kW < 8);
    constexpr int panel = N == 1 ? panel_layout(W::Source::type).lines : N * kPlane;
    const uint8_t* w = W::codes(from, unpacked, step.panel);
    const int8_t* x0 = tile_x_of_256(block, start(step.tile)).codes;
    const int8_t* x1 = R > 1 ? tile_x_of_256(block, start(step.tile + 1)).codes : x0;
    each<R * P * N>([&]<int i>() KE_LAMBDA { tile_zero<i>(); });
#pragma GCC unroll 1
    for (int part = 0; part < kParts; ++part) {
      tile_load<kX>(x0 + part * kTileDepth, kBlock);
      if constexpr (R > 1) tile_load<kX + 1>(x1 + part * kTileDepth, kBlock);
      each<P, N>([&]<int p, int n>() KE_LAMBDA {
        constexpr int to = kW + (kW < 7 ? (p * N + n) % 2 : 0);
        tile_load<to>(w + p * panel + n * kPlane + part * (kTileDepth / 4 * kLine), kLine);
        each<R>([&]<int r>() KE_LAMBDA { tile_dot<W::is_signed, (r * P + p) * N + n, kX + r, to>(); });
      });
      combine(from, block, before, sums_before, part);
    }
    each<R * P * N>([&]<int i>() KE_LAMBDA { tile_store<i>(sums + i * kTileRows * 16, kLine); });
  }

  // acc += value * scale as add_block does, for one part of the rows of each tile.
  KE_INLINE void combine(const From& from, int64_t block, const Step& step, const int32_t* sums, int part) const {
    for (int r = 0; r < step.row_tiles; ++r) {
      const int64_t tile = step.tile + r, first = start(tile);
      const int done = static_cast<int>(tile * kTileRows - first), begin = part * kPartRows;
      const TileX x = tile_x_of_256(block, first);
      float* acc = acc_ + first * 16 * kPanels + 16 * step.panel;
      for (int p = 0; p < W::panels; ++p) {
        const typename W::Panel panel(from, step.panel + p);
        const int32_t* of_tile = sums + (r * W::panels + p) * W::planes * kTileRows * 16;
        const auto add_row = [&](int row) KE_LAMBDA {
          float* a = acc + row * 16 * kPanels + 16 * p;
          store(a, add(load(a), mul(panel.value(of_tile + row * 16, x, row), set1(x.scale[row]))));
        };
        if (begin >= done && begin + kPartRows <= rows_)
          each<kPartRows>([&]<int i>() KE_LAMBDA { add_row(begin + i); });
        else
          for (int row = begin < done ? done : begin; row < begin + kPartRows && row < rows_; ++row) add_row(row);
      }
    }
  }

  // As tile_x, where blocks have 256 values.
  KE_INLINE TileX tile_x_of_256(int64_t block, int64_t row) const {
    const int64_t at = block * x_.rows + row0_ + row;
    return {x_.codes + at * kBlock, x_.scale + at,     x_.sum16 + at * 16,
            x_.sum32 + at * 8,      x_.mins + at * 16, x_.starts + at * kStarts};
  }

  const Packed& x_;
  const int64_t row0_, n_, rows_, tiles_;
  float* const acc_;
  int32_t* const sums_;
};

// Scratch: sums of rows, sums of two steps, planes.
constexpr int64_t kAccBytes = kSumsAtOnce * kPanels * 16 * 4;
constexpr int64_t kStepBytes = 2 * BlockProduct<Q6Planes>::kStepSums * 4;
constexpr int64_t kScratch = kAccBytes + kStepBytes + kPanels * Q6Planes::planes * kPlane;

template <class W>
void linear_in_tiles(const LinearTask& task) {
  static_assert(BlockProduct<W>::kStepSums <= BlockProduct<Q6Planes>::kStepSums);
  const Packed& x = *task.x;
  float* acc = reinterpret_cast<float*>(task.scratch);
  int32_t* sums = reinterpret_cast<int32_t*>(task.scratch + kAccBytes);
  uint8_t* unpacked = task.scratch + kAccBytes + kStepBytes;
  const int64_t begin = tile_start(x.rows, kTileCols, task.tile_begin);
  const int64_t end = tile_start(x.rows, kTileCols, task.tile_end);
  const TileRegisters registers(static_cast<int>(end - begin < kTileRows ? end - begin : kTileRows),
                                W::row_tiles * W::panels * W::planes + W::row_tiles);
  for (int64_t part = 0; part < tile_count(end - begin, kSumsAtOnce); ++part) {
    const int64_t row0 = begin + tile_start(end - begin, kSumsAtOnce, part);
    const int64_t row1 = begin + tile_start(end - begin, kSumsAtOnce, part + 1);
    for (int64_t i = 0; i < (row1 - row0) * 16 * kPanels; i += 16) store(acc + i, set1(-0.0f));  // -0 + x is x
    BlockProduct<W> product(x, row0, row1 - row0, acc, sums);
    for (int64_t b = 0; b < x.cols / kBlock; ++b) {
      const FromPanels<typename W::Source, kPanels, false> from(task.group, b, kBlock, 0);
      W::unpack(from, unpacked);
      product.run(from, unpacked, b);
    }
    finish_rows(task, acc, row0, row1);
  }
}

template <class W>
void linear_of(const LinearTask& task) {
  const Packed& x = *task.x;
  const int64_t rows = tile_start(x.rows, kTileCols, task.tile_end) - tile_start(x.rows, kTileCols, task.tile_begin);
  if (x.block == kBlock && rows >= W::least_rows)
    linear_in_tiles<W>(task);
  else
    avx512vnni::linear(&task);
}

}  // namespace

extern const int64_t linear_scratch_bytes;
const int64_t linear_scratch_bytes = kScratch;

void linear(const LinearTask* task) {
  switch (task->type) {
    case PanelType::Q4_K:
      return linear_of<AffinePlanes<Q4_K>>(*task);
    case PanelType::Q5_K:
      return linear_of<AffinePlanes<Q5_K>>(*task);
    case PanelType::Q6_K:
      return linear_of<Q6Planes>(*task);
    case PanelType::I8:
      return linear_of<I8Planes>(*task);
    default:
      return avx512vnni::linear(task);
  }
}

}  // namespace ke::cpu::KE_ISA
