// Products of quantized weights with many rows in tile registers; AVX-512's products do the rest.
#include "cpu/amx/weights.inl"
#include "cpu/linear_float.inl"

namespace ke::cpu::avx512vnni {
void linear(const LinearTask* task);
}

namespace ke::cpu::KE_ISA {

namespace {

constexpr int64_t kSumsAtOnce = 17 * kTileRows;  // rows whose sums are kept while the blocks pass by

// Into the second level of cache: the first one is full of what a block's steps read again and again.
inline void prefetch_far(const uint8_t* p, int begin, int end) {
  for (int i = begin & -64; i < end; i += 64) __builtin_prefetch(p + 3 * kAhead + i, 0, 2);
}

// Products of the blocks of a group with rows row0 .. row0 + 16 tiles - 1 of x; acc: (kPanels, 16 tiles, 16). Rows past
// the last one of x are whatever lies behind them in memory.
template <class W>
class GroupProduct {
 public:
  using From = FromPanels<typename W::Source, kPanels, false>;
  static constexpr int kTileSums = kTileRows * 16, kPanelSums = W::planes * kTileSums;
  static constexpr int kStepSums = W::row_tiles * W::panels * kPanelSums;

  GroupProduct(const Packed& x, int64_t row0, int64_t tiles, float* acc, int32_t* sums, uint8_t* unpacked)
      : x_(x), row0_(row0), tiles_(tiles), acc_(acc), sums_(sums), unpacked_(unpacked) {}

  void run(const uint8_t* group) {
    const int64_t blocks = x_.cols / kBlock;
    const int steps = static_cast<int>(tile_count(tiles_, W::row_tiles)) * (kPanels / W::panels);
    for (int64_t b = 0; b < blocks; ++b) {
      const From from(group, b, kBlock, 0);
      int s = 0;
      const auto step_of = [&](int64_t tile, int panel) KE_LAMBDA {
        prefetch_far(from.later, from.step * s / steps, from.step * (s + 1) / steps);
        const bool whole = tiles_ - tile >= W::row_tiles;
        const Step step{from, b, tile, whole ? W::row_tiles : 1, panel, sums_ + s_ % 2 * kStepSums};
        if (whole)
          multiply<W::row_tiles>(step);
        else
          multiply<1>(step);
        before_ = step;
        ++s_;
        ++s;
      };
      if constexpr (W::unpacks) {
        for (int panel = 0; panel < kPanels; panel += W::panels) {
          for (int p = 0; p < W::panels; ++p) W::unpack(from, panel + p, unpacked_ + p * W::planes * kPlane);
          for (int64_t tile = 0; tile < tiles_; tile += W::row_tiles) step_of(tile, panel);
        }
      } else {  // all panels of a block stay in the first level of cache, and so does what a step reads of x
        for (int64_t tile = 0; tile < tiles_; tile += W::row_tiles)
          for (int panel = 0; panel < kPanels; panel += W::panels) step_of(tile, panel);
      }
    }
    if (before_.row_tiles == W::row_tiles)
      combine<W::row_tiles>();
    else
      combine<1>();
  }

 private:
  static constexpr int kParts = kBlock / kTileDepth, kPartRows = kTileRows / kParts;

  // Some tiles of rows times some panels: integer sums, which are combined while the next step multiplies.
  struct Step {
    From from;
    int64_t block, tile;
    int row_tiles, panel;
    int32_t* sums;
  };

  // acc += value * scale as add_block does, for the R tiles of a step's rows; First: of the first block, = instead of
  // +=.
  template <int R, bool First>
  struct Combining {
    KE_INLINE Combining(const GroupProduct& product, const Step& step)
        : panels(step.from, step.panel),
          sums(step.sums),
          acc(product.acc_ + (step.panel * product.tiles_ + step.tile) * kTileSums),
          acc_panel(product.tiles_ * kTileSums),
          x(product.tile_x_of_256(step.block, step.tile)) {}
    // The share that falls to one of `Shares` products of a part of k: of each tile a part of the rows.
    template <int Share, int Shares>
    KE_INLINE void rows() {
      constexpr int units = R * W::panels * kPartRows, first = Share * units / Shares;
      each<(Share + 1) * units / Shares - first>([&]<int i>() KE_LAMBDA {
        constexpr int tile = (first + i) / kPartRows, r = tile / W::panels, p = tile % W::panels;
        constexpr int row = (first + i) % kPartRows, row_of_x = r * kTileRows + row;
        float* a = acc + p * acc_panel + row_of_x * 16;
        const f32x16 value =
            mul(panels.template value<p>(sums + tile * kPanelSums + row * 16, x, row_of_x), set1(x.scale[row_of_x]));
        store(a, First ? value : add(load(a), value));
      });
    }
    KE_INLINE void next_part() {
      sums += kPartRows * 16;
      acc += kPartRows * 16;
      x.scale += kPartRows;
      x.sum16 += kPartRows * 16;
      x.mins += kPartRows * 16;
      x.starts += kPartRows * kStarts;
      x.total += kPartRows;
    }
    const typename W::Panels panels;
    const int32_t* sums;
    float* acc;
    const int64_t acc_panel;
    TileX x;
  };

  // In place of the step before the first one.
  struct Nothing {
    Nothing(const GroupProduct&, const Step&) {}
    template <int, int>
    void rows() {}
    void next_part() {}
  };

  template <int R>
  void combine() const {
    if (before_.block == 0)
      combine<R, true>();
    else
      combine<R, false>();
  }
  template <int R, bool First>
  void combine() const {
    Combining<R, First> combining(*this, before_);
    for (int part = 0; part < kParts; ++part, combining.next_part()) combining.template rows<0, 1>();
  }

  template <int R>
  KE_INLINE void multiply(const Step& step) const {
    if (!before_.sums)
      multiply<R, Nothing>(step);
    else if (before_.block == 0)
      multiply_after<R, true>(step);
    else
      multiply_after<R, false>(step);
  }
  template <int R, bool First>
  KE_INLINE void multiply_after(const Step& step) const {
    if (before_.row_tiles == W::row_tiles)
      multiply<R, Combining<W::row_tiles, First>>(step);
    else
      multiply<R, Combining<1, First>>(step);
  }

  // The integer sums of a step. After each product, some rows of the step before are combined: the tile unit is a unit
  // of its own, but the processor looks only some hundred instructions ahead.
  template <int R, class Before>
  void multiply(const Step& step) const {
    constexpr int P = W::panels, N = W::planes, kX = W::row_tiles * P * N, kW = kX + W::row_tiles;
    static_assert(kW < 8);
    constexpr int panel = W::unpacks ? N * kPlane : panel_layout(W::Source::type).lines;
    const uint8_t* w = W::codes(step.from, unpacked_, step.panel);
    const int8_t* x = tile_x_of_256(step.block, step.tile).codes;
    Before combining(*this, before_);
    each<R * P * N>([&]<int i>() KE_LAMBDA { tile_zero<i>(); });
#pragma GCC unroll 1
    for (int part = 0; part < kParts; ++part) {
      each<R>([&]<int r>() KE_LAMBDA { tile_load<kX + r>(x + r * kTileRows * kBlock, kBlock); });
      each<P, N>([&]<int p, int n>() KE_LAMBDA {
        constexpr int to = kW + (kW < 7 ? (p * N + n) % 2 : 0);
        tile_load<to>(w + p * panel + n * kPlane, kLine);
        each<R>([&]<int r>() KE_LAMBDA {
          tile_dot<W::is_signed, (r * P + p) * N + n, kX + r, to>();
          combining.template rows<(p * N + n) * R + r, R * P * N>();
        });
      });
      x += kTileDepth;
      w += kTileDepth / 4 * kLine;
      combining.next_part();
    }
    each<R * P * N>([&]<int i>() KE_LAMBDA { tile_store<i>(step.sums + i * kTileSums, kLine); });
  }

  // As tile_x, of the rows of a tile, where blocks have 256 values.
  KE_INLINE TileX tile_x_of_256(int64_t block, int64_t tile) const {
    const int64_t at = block * x_.rows + row0_ + tile * kTileRows;
    return {x_.codes + at * kBlock,   x_.scale + at, x_.sum16 + at * 16, x_.sum32 + at * 8, x_.mins + at * 16,
            x_.starts + at * kStarts, x_.total + at};
  }

  const Packed& x_;
  const int64_t row0_, tiles_;
  float* const acc_;
  int32_t* const sums_;  // of two steps
  uint8_t* const unpacked_;
  int64_t s_ = 0;
  Step before_{From(nullptr, 0, 0, 0), 0, 0, 0, 0, nullptr};
};

// Scratch: sums of rows, sums of two steps, planes.
constexpr int64_t kAccBytes = kSumsAtOnce * kPanels * 16 * 4;
using Largest = AffinePlanes<Q4_K>;
constexpr int64_t kStepBytes = 2 * GroupProduct<Largest>::kStepSums * 4;
constexpr int64_t kScratch = kAccBytes + kStepBytes + Largest::panels * Largest::planes * kPlane;

// As finish_rows, of sums (panels, 16 tiles, 16).
inline void finish_panels(const LinearTask& task, const float* acc, int64_t tiles, int64_t row0, int64_t row1) {
  for (int64_t row = row0; row < row1; ++row, acc += 16)
    for (int64_t at = 0; at < 16 * kPanels && task.output + at < task.outputs; at += 16) {
      const int64_t left = task.outputs - task.output - at;
      finish(task.epilogue, load(acc + at * tiles * kTileRows), row, task.output + at,
             left < 16 ? static_cast<int>(left) : 16);
    }
}

template <class W>
void linear_in_tiles(const LinearTask& task) {
  static_assert(GroupProduct<W>::kStepSums <= GroupProduct<Largest>::kStepSums);
  static_assert(!W::unpacks || W::panels * W::planes <= Largest::panels * Largest::planes);
  const Packed& x = *task.x;
  float* acc = reinterpret_cast<float*>(task.scratch);
  int32_t* sums = reinterpret_cast<int32_t*>(task.scratch + kAccBytes);
  uint8_t* unpacked = task.scratch + kAccBytes + kStepBytes;
  const int64_t begin = tile_start(x.rows, kTileCols, task.tile_begin);
  const int64_t end = tile_start(x.rows, kTileCols, task.tile_end);
  const TileRegisters registers;
  for (int64_t row0 = begin; row0 < end; row0 += kSumsAtOnce) {
    const int64_t row1 = row0 + kSumsAtOnce < end ? row0 + kSumsAtOnce : end;
    const int64_t tiles = tile_count(row1 - row0, kTileRows);
    GroupProduct<W>(x, row0, tiles, acc, sums, unpacked).run(task.group);
    finish_panels(task, acc, tiles, row0, row1);
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
    case PanelType::Q2_K:
      return linear_of<Q2Planes>(*task);
    case PanelType::Q3_K:
      return linear_of<SignedPlanes<Q3_K, 32>>(*task);
    case PanelType::Q6_K:
      return linear_of<SignedPlanes<Q6_K, 32>>(*task);
    case PanelType::I8:
      return linear_of<I8Planes>(*task);
    case PanelType::IQ4_XS:
      return linear_of<SignedPlanes<IQ4_XS, 128>>(*task);
    default:
      return avx512vnni::linear(task);
  }
}

}  // namespace ke::cpu::KE_ISA
