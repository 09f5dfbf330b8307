// Matrix products with quantized weights and activations quantized per row and block: integer sums, exact; one
// floating-point combination per block in a fixed order (quant_dot4.inl has the definition).

// One tile's activations of one block.
struct TileX {
  const int8_t* codes;
  const float* scale;
  const int32_t* sum16;
  const int32_t* sum32;
  const int8_t* mins;
};

#include "cpu/formats.inl"
#ifdef KE_QUANT_TILES
#include KE_QUANT_TILES
#else
#include "cpu/quant_dot4.inl"
#endif

// One block of one row: scale = amax / 127, code = nearest(x * (127 / amax)), ties to even, so |code| <= 127.
// Blocks whose largest magnitude is below 2^-100 become zero; a NaN or infinity gives scale NaN or infinity.
inline void quantize_block(const float* x, int n, int cols, int8_t* codes, float* scale, int32_t* sum16, int32_t* sum32,
                           int8_t* mins) {
  i32x16 top = set1(0);  // magnitudes compare like the integers of their bits, NaN above all
  for (int i = 0; i < n; i += 16) top = max(top, bits_of(abs(load(x + i))));
  const int32_t amax_bits = max_lane(top);
  float amax;
  __builtin_memcpy(&amax, &amax_bits, 4);
  const bool zero_block = amax < 7.888609052210118e-31f;
  *scale = zero_block ? 0.0f : amax / 127.0f;
  const f32x16 inverse = set1(zero_block ? 0.0f : 127.0f / amax);
  int32_t previous = 0;
  for (int i = 0; i < n; i += 16) {
    const i32x16 q = to_int(mul(load(x + i), inverse));
    alignas(16) int8_t bytes[16];
    store_bytes(bytes, q);
    for (int j = 0; j < 4; ++j) __builtin_memcpy(codes + (i / 4 + j) * cols * 4, bytes + 4 * j, 4);
    const int32_t s = sum(q);
    if (n == kBlock) sum16[i / 16 * cols] = s;
    if (i % 32) {
      const int32_t both = previous + s, high = (both + 32) >> 6;  // both = 64 high + low; |high| <= 64, |low| <= 32
      const int sub = i / 32, half = sub / 4;
      sum32[sub * cols] = both;
      if (n == kBlock) {
        mins[(half * 2 * cols) * 4 + sub % 4] = static_cast<int8_t>(high);
        mins[((half * 2 + 1) * cols) * 4 + sub % 4] = static_cast<int8_t>(both - 64 * high);
      }
    }
    previous = s;
  }
}

inline TileX tile_x(const Packed& x, int64_t block, int64_t row) {
  const int64_t b = x.block, at = block * x.rows + row;  // blocks of whole columns lie before the tile's
  return {x.codes + at * b, x.scale + at, x.sum16 + at * 16, x.sum32 + at * (b / 32), x.mins + at * 16};
}

void pack_quantized(const float* x, int64_t stride, const Packed* out, int64_t tile_begin, int64_t tile_end) {
  const int64_t blocks = out->cols / out->block;
  for (int64_t t = tile_begin; t < tile_end; ++t) {
    const int64_t row = tile_start(out->rows, kTileCols, t);
    const int cols = static_cast<int>(tile_start(out->rows, kTileCols, t + 1) - row);
    for (int64_t b = 0; b < blocks; ++b) {
      const TileX to = tile_x(*out, b, row);
      for (int c = 0; c < cols; ++c)
        quantize_block(x + (row + c) * stride + b * out->block, out->block, cols, const_cast<int8_t*>(to.codes) + c * 4,
                       const_cast<float*>(to.scale) + c, const_cast<int32_t*>(to.sum16) + c,
                       const_cast<int32_t*>(to.sum32) + c, const_cast<int8_t*>(to.mins) + c * 4);
    }
  }
}

template <class Format, class Tiles>
void linear_quantized_as(const LinearTask& task) {
  constexpr int P = kPanels;
  const Packed& x = *task.x;
  auto* w = reinterpret_cast<Unpacked*>(task.scratch);
  float* acc = reinterpret_cast<float*>(task.scratch + sizeof(Unpacked) * P);
  const int64_t blocks = x.cols / x.block;
  for (int64_t t0 = task.tile_begin; t0 < task.tile_end; t0 += kTilesAtOnce) {
    const int64_t t1 = t0 + kTilesAtOnce < task.tile_end ? t0 + kTilesAtOnce : task.tile_end;
    const int64_t row0 = tile_start(x.rows, kTileCols, t0), row1 = tile_start(x.rows, kTileCols, t1);
    if (row1 - row0 <= kDirectRows && t1 - t0 == 1) {
      if constexpr (kDirectRows > 0)
        for_columns<kDirectRows>(static_cast<int>(row1 - row0), [&]<int C>() {
          for (int64_t b = 0; b < blocks; ++b)
            Tiles::template tile<P, C>(FromPanels<Format, P>(task.group, b, x.block), tile_x(x, b, row0), x.block, acc,
                                       16 * P, b == 0);
        });
    } else {
      for (int64_t b = 0; b < blocks; ++b) {
        unpack(FromPanels<Format, P>(task.group, b, x.block), x.block, w);
        for (int64_t t = t0; t < t1; ++t) {
          const int64_t row = tile_start(x.rows, kTileCols, t);
          const int cols = static_cast<int>(tile_start(x.rows, kTileCols, t + 1) - row);
          for_columns<kTileCols>(cols, [&]<int C>() {
            Tiles::template tile<P, C>(FromScratch{w, Format::sub_blocks, Format::offset}, tile_x(x, b, row), x.block,
                                       acc + (row - row0) * 16 * P, 16 * P, b == 0);
          });
        }
      }
    }
    finish_rows(task, acc, row0, row1);
  }
}

void linear_quantized(const LinearTask& task) {
  switch (task.type) {
    case PanelType::Q8_0: return linear_quantized_as<EightBits, Blocks32<8, false>>(task);
    case PanelType::Q4_0: return linear_quantized_as<FourBits<PanelType::Q4_0>, Blocks32<4, false>>(task);
    case PanelType::Q4_1: return linear_quantized_as<FourBits<PanelType::Q4_1>, Blocks32<4, true>>(task);
    case PanelType::Q5_0: return linear_quantized_as<FiveBits<PanelType::Q5_0>, Blocks32<5, false>>(task);
    case PanelType::Q5_1: return linear_quantized_as<FiveBits<PanelType::Q5_1>, Blocks32<5, true>>(task);
    case PanelType::Q4_K: return linear_quantized_as<Q4_K, SubBlocks32<4>>(task);
    case PanelType::Q5_K: return linear_quantized_as<Q5_K, SubBlocks32<5>>(task);
    case PanelType::Q6_K: return linear_quantized_as<Q6_K, SubBlocks16>(task);
    default: return;
  }
}

constexpr int64_t kQuantScratch = sizeof(Unpacked) * kPanels;
constexpr int64_t kLinearScratch = kQuantScratch + kTilesAtOnce * kTileCols * kPanels * 16 * 4;
