// Matrix products with quantized weights and activations quantized per row and block: integer sums, exact; one
// floating-point combination per block in a fixed order (quant_dot4.inl has the definition).

// A tile's activations of one block: column c's codes at codes + c * kBlock, its sums, mins and starts likewise.
struct TileX {
  int8_t* codes;
  float* scale;
  int32_t* sum16;
  int32_t* sum32;
  int8_t* mins;
  int32_t* starts;
};

#include "cpu/formats.inl"
#ifdef KE_QUANT_TILES
#include KE_QUANT_TILES
#else
#include "cpu/quant_dot4.inl"
#endif

// Where row `row` of a block begins.
inline TileX tile_x(const Packed& x, int64_t block, int64_t row) {
  const int64_t per = kBlock / x.block, at = block / per * x.rows + row, part = block % per;
  return {x.codes + at * kBlock + part * x.block,
          x.scale + block * x.rows + row,
          x.sum16 + at * 16,
          x.sum32 + at * 8 + part,
          x.mins + at * 16,
          x.starts + at * kStarts};
}

// One block of one row: scale = amax / 127, code = nearest(x * (127 / amax)), ties to even, so |code| <= 127.
// Blocks whose largest magnitude is below 2^-100 become zero; a NaN or infinity gives scale NaN or infinity.
inline float quantize_block(const float* x, int n, int8_t* codes) {
  i32x16 top = set1(0);  // magnitudes compare like the integers of their bits, NaN above all
  for (int i = 0; i < n; i += 16) top = max(top, bits_of(abs(load(x + i))));
  const int32_t amax_bits = max_lane(top);
  float amax;
  __builtin_memcpy(&amax, &amax_bits, 4);
  const bool zero_block = amax < 7.888609052210118e-31f;
  const f32x16 inverse = set1(zero_block ? 0.0f : 127.0f / amax);
  for (int i = 0; i < n; i += 16) store_bytes(codes + i, to_int(mul(load(x + i), inverse)));
  return zero_block ? 0.0f : amax / 127.0f;
}

void pack_quantized(const float* x, const Packed* out, int64_t row) {
  for (int64_t b = 0; b < out->cols / out->block; ++b) {
    const TileX to = tile_x(*out, b, row);
    *to.scale = quantize_block(x + b * out->block, out->block, to.codes);
    int32_t sums[kBlock / 16];
    for (int i = 0; i < out->block / 32; ++i) {
      sums_of_16(to.codes + 32 * i, sums + 2 * i);
      to.sum32[i] = sums[2 * i] + sums[2 * i + 1];
    }
    if (out->block != kBlock) continue;
    __builtin_memcpy(to.sum16, sums, sizeof sums);
    store(to.starts, sub(set1(0), shift_left<5>(load(sums))));
    to.starts[24] = 0;
    for (int i = 0; i < 8; ++i) to.starts[24] += to.starts[16 + i] = -128 * to.sum32[i];
    for (int i = 0; i < 8; ++i) {
      const int32_t both = to.sum32[i], high = (both + 32) >> 6;  // |high| <= 64, |both - 64 high| <= 32
      to.mins[i / 4 * 8 + i % 4] = static_cast<int8_t>(high);
      to.mins[i / 4 * 8 + 4 + i % 4] = static_cast<int8_t>(both - 64 * high);
    }
  }
}

// Panels that a tile of `cols` columns takes at once: as many as leave its sums in registers.
static constexpr int tile_panels(int cols) {
  int panels = kPanels;
  while (panels > 1 && panels * cols > kQuantSums) panels /= 2;
  return panels;
}

// acc (rows, 16 kPanels) += one block of the group times rows row0 .. row1 - 1 of x. weights(P, first, t) gives the
// weights of P panels from `first` on for tile t, of up to Cols rows.
template <class Tiles, int Cols, class Weights>
KE_INLINE void tiles_of_block(const Packed& x, int64_t b, int64_t row0, int64_t row1, float* acc, Weights weights) {
  const int64_t n = row1 - row0, tiles = tile_count(n, Cols);
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t at = tile_start(n, Cols, t);
    for_columns<Cols>(static_cast<int>(tile_start(n, Cols, t + 1) - at), [&]<int C>() {
      constexpr int P = tile_panels(C);
      for (int first = 0; first < kPanels; first += P)
        Tiles::template tile<P, C>(weights(Const<P>(), first, t), tile_x(x, b, row0 + at), x.block,
                                   acc + at * 16 * kPanels + 16 * first, 16 * kPanels);
    });
  }
}

// Rows of x up to which unpacking in registers beats unpacking once.
static constexpr int direct_rows(PanelType type) {
  if (type == PanelType::I8) return INT32_MAX;  // there is nothing to unpack
  if (type == PanelType::Q8_0) return kDirectRows;
  const bool four_bits = type == PanelType::Q4_K || type == PanelType::Q4_0 || type == PanelType::Q4_1;
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
                                             [&]<int P>(Const<P>, int first, int64_t t) KE_LAMBDA {
                                               return FromPanels<Format, P>(task.group, b, x.block, first, t == 0);
                                             });
      } else if constexpr (direct < INT32_MAX) {
        const FromPanels<Format, kPanels> from(task.group, b, x.block, 0, false);
        const int bytes = x.block / panel_layout(Format::type).values * from.step;
        const int64_t tiles = tile_count(row1 - row0, kQuantCols);
        unpack(from, x.block, w);
        tiles_of_block<Tiles, kQuantCols>(x, b, row0, row1, acc, [&]<int P>(Const<P>, int first, int64_t t) KE_LAMBDA {
          if (first == 0)
            prefetch(from.later, static_cast<int>(bytes * t / tiles), static_cast<int>(bytes * (t + 1) / tiles));
          return FromScratch{w + first, Format::sub_blocks, Format::offset};
        });
      }
    finish_rows(task, acc, row0, row1);
  }
}

void linear_quantized(const LinearTask& task) {
  switch (task.type) {
    case PanelType::Q8_0:
      return linear_quantized_as<EightBits, Blocks32<8, false>>(task);
    case PanelType::Q4_0:
      return linear_quantized_as<FourBits<PanelType::Q4_0>, Blocks32<4, false>>(task);
    case PanelType::Q4_1:
      return linear_quantized_as<FourBits<PanelType::Q4_1>, Blocks32<4, true>>(task);
    case PanelType::Q5_0:
      return linear_quantized_as<FiveBits<PanelType::Q5_0>, Blocks32<5, false>>(task);
    case PanelType::Q5_1:
      return linear_quantized_as<FiveBits<PanelType::Q5_1>, Blocks32<5, true>>(task);
    case PanelType::Q4_K:
      return linear_quantized_as<Q4_K, SubBlocks32<4>>(task);
    case PanelType::Q5_K:
      return linear_quantized_as<Q5_K, SubBlocks32<5>>(task);
    case PanelType::Q6_K:
      return linear_quantized_as<Q6_K, SubBlocks16>(task);
#ifndef KE_QUANT_TILES
    case PanelType::I8:
      return linear_quantized_as<CoarseEightBits, WholeBlocks>(task);
#endif
    default:
      return;
  }
}

constexpr int64_t kQuantScratch = sizeof(Unpacked) * kPanels;
constexpr int64_t kLinearScratch = kQuantScratch + kTilesAtOnce * kTileCols * kPanels * 16 * 4;
