// Kernels that take one row at a time: norms, additions, gates, rotations, packing for the products.
#include "cpu/elementwise.inl"
#include "cpu/quant_tiles.inl"

namespace ke::cpu::KE_ISA {

// Two passes: the mean, then the mean square of the differences from it. To Rms the mean is 0.
void norm_row(const float* x, const RowNorm* norm, int64_t n, float* y) {
  const float mean = norm->rms ? 0.0f : reduce(x, n, [](f32x16 v) { return v; }) / static_cast<float>(n);
  const f32x16 m = set1(mean);
  const float variance = reduce(x, n, [=](f32x16 v) { return mul(sub(v, m), sub(v, m)); }) / static_cast<float>(n);
  const f32x16 r = set1(1.0f / square_root(variance + norm->eps));
  const float *gamma = norm->gamma, *beta = norm->beta;
  map(x, y, n, [=](f32x16 v, int64_t i, int count) {
    const f32x16 g = load_n(gamma + i, count), b = beta ? load_n(beta + i, count) : zero();
    return fma(mul(sub(v, m), r), g, b);
  });
}

void l2_normalize(float* x, float eps, int64_t n) {
  const float norm = square_root(reduce(x, n, [](f32x16 v) { return mul(v, v); }));
  const f32x16 r = set1(1.0f / (norm > eps ? norm : eps));
  map(x, x, n, [=](f32x16 v, int64_t, int) { return mul(v, r); });
}

void add_rows(const float* x, float* y, int64_t n) {
  map(x, y, n, [=](f32x16 v, int64_t i, int count) { return add(load_n(y + i, count), v); });
}

void add_scaled(const float* x, float factor, float* y, int64_t n) {
  const f32x16 f = set1(factor);
  map(x, y, n, [=](f32x16 v, int64_t i, int count) { return add(load_n(y + i, count), mul(f, v)); });
}

void scale_row(const float* x, float factor, float* y, int64_t n) {
  const f32x16 f = set1(factor);
  map(x, y, n, [=](f32x16 v, int64_t, int) { return mul(f, v); });
}

void gate_row(const float* gate, Act act, const float* up, float* y, int64_t n) {
  map(gate, y, n, [=](f32x16 v, int64_t i, int count) { return mul(activate(v, act), load_n(up + i, count)); });
}

// Without fused steps, so that all instruction sets give the same bits.
void rope_head(float* x, const float* turn, int64_t dims, bool interleaved) {
  const int64_t half = dims / 2;
  if (interleaved) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * turn[i] - b * turn[half + i];
      x[2 * i + 1] = b * turn[i] + a * turn[half + i];
    }
    return;
  }
  float* high = x + half;
  for (int64_t i = 0; i < half; i += 16) {
    const int n = half - i < 16 ? static_cast<int>(half - i) : 16;
    const f32x16 a = load_n(x + i, n), b = load_n(high + i, n);
    const f32x16 c = load_n(turn + i, n), s = load_n(turn + half + i, n);
    store_n(x + i, sub(mul(a, c), mul(b, s)), n);
    store_n(high + i, add(mul(b, c), mul(a, s)), n);
  }
}

void pack_floats(const float* x, const Packed* out, int64_t row) {
  for (int64_t k = 0; k < out->cols; k += kFloatChunk) {
    const int64_t n = out->cols - k < kFloatChunk ? out->cols - k : kFloatChunk;
    __builtin_memcpy(out->values + k * out->rows + row * kFloatChunk, x + k, n * sizeof(float));
  }
}

// For I8 weights alone, which need no sum but that of a whole block.
static void pack_for_i8(const float* x, const Packed& out, int64_t row) {
  for (int64_t b = 0; b < out.cols / kBlock; ++b) {
    const TileX to = tile_x(out, b, row);
    *to.scale = quantize_block(x + b * kBlock, kBlock, to.codes);
    i32x16 codes = set1(0);
    for (int i = 0; i < kBlock; i += 16) codes = add(codes, load_bytes(to.codes + i));
    *to.total = -128 * static_cast<int32_t>(sum(to_float(codes)));  // integers below 2^16: exact
  }
}

void pack_quantized(const float* x, const Packed* out, int64_t row) {
  if (out->only_i8) return pack_for_i8(x, *out, row);
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
#ifdef KE_QUANT_TILES
    if (out->rows > 1) sub_block_starts(to.codes, to.starts);
#endif
    *to.total = 0;
    for (int i = 0; i < 8; ++i) *to.total += to.starts[16 + i] = -128 * to.sum32[i];
    for (int i = 0; i < 8; ++i) {
      const int32_t both = to.sum32[i], high = (both + 32) >> 6;  // |high| <= 64, |both - 64 high| <= 32
      to.mins[i / 4 * 8 + i % 4] = static_cast<int8_t>(high);
      to.mins[i / 4 * 8 + 4 + i % 4] = static_cast<int8_t>(both - 64 * high);
    }
  }
}

}  // namespace ke::cpu::KE_ISA
