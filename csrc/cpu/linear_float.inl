// Matrix products with floating-point weights, the exact path: float32 products and sums whatever the storage.
// Every output is its bias plus, chunk by chunk of kFloatChunk k in order, the sum of the chunk's products added one
// after the other. That order does not depend on tiles, panels or threads, so a row gives the same bits in any batch.
#pragma once
#include "cpu/elementwise.inl"

namespace ke::cpu::KE_ISA {
namespace {

struct F32Weights {
  using Stored = float;
  static inline f32x16 get(const float* p) { return load(p); }
};
struct F16Weights {
  using Stored = uint16_t;
  static inline f32x16 get(const uint16_t* p) { return load_half(p); }
};
struct BF16Weights {
  using Stored = uint16_t;
  static inline f32x16 get(const uint16_t* p) { return load_bfloat(p); }
};

// Where a tile's activations lie: [k][C], or in rows, a constant or variable number of floats apart.
template <int C>
struct PackedTile {
  const float* p;
  KE_INLINE float at(int64_t k, int c) const { return p[k * C + c]; }
  KE_INLINE PackedTile from(int64_t k) const { return {p + k * C}; }
};
struct ChunkTile {
  const float* p;
  KE_INLINE float at(int64_t k, int c) const { return p[k + c * kFloatChunk]; }
};
struct RowTile {
  const float* p;
  int64_t stride;
  KE_INLINE float at(int64_t k, int c) const { return p[k + c * stride]; }
  KE_INLINE RowTile from(int64_t k) const { return {p + k, stride}; }
};

// Where P panels of weights lie: one group, [k][P][16], or each on its own, [k][16].
template <class W, int P>
struct GroupedPanels {
  const typename W::Stored* w;
  KE_INLINE f32x16 at(int64_t k, int p) const { return W::get(w + (k * P + p) * 16); }
  KE_INLINE GroupedPanels from(int64_t k) const { return {w + k * P * 16}; }
};
template <class W, int P>
struct SeparatePanels {
  const typename W::Stored* w;
  int64_t stride;
  KE_INLINE f32x16 at(int64_t k, int p) const { return W::get(w + p * stride + k * 16); }
  KE_INLINE SeparatePanels from(int64_t k) const { return {w + k * 16, stride}; }
};

// acc[c][16 p + lane] (+)= sum over k < n of w[p][k][lane] * x(k, c), for P panels and C columns.
template <int P, int C, class W, class X>
inline void float_chunk(W w, int64_t n, X x, float* acc, int64_t acc_stride, bool first) {
  f32x16 s[C][P];
  each<C, P>([&]<int c, int p>() KE_LAMBDA { s[c][p] = zero(); });
  for (int64_t k = 0; k < n; ++k) {
    f32x16 v[P];
    each<P>([&]<int p>() KE_LAMBDA { v[p] = w.at(k, p); });
    each<C>([&]<int c>() KE_LAMBDA {
      const f32x16 b = set1(x.at(k, c));
      each<P>([&]<int p>() KE_LAMBDA { s[c][p] = fma(v[p], b, s[c][p]); });
    });
  }
  each<C, P>([&]<int c, int p>() KE_LAMBDA {
    float* a = acc + c * acc_stride + 16 * p;
    store(a, first ? s[c][p] : add(load(a), s[c][p]));
  });
}

// The whole sum over k, for tiles that lie in one piece; acc takes it, or with `more` has it added.
template <int P, int C, class W, class X>
inline void float_tile(W w, int64_t n, X x, float* acc, int64_t acc_stride, bool more) {
  for (int64_t k = 0; k < n; k += kFloatChunk)
    float_chunk<P, C>(w.from(k), n - k < kFloatChunk ? n - k : kFloatChunk, x.from(k), acc, acc_stride,
                      k == 0 && !more);
}

constexpr int64_t kTilesAtOnce = 44;  // tiles whose sums are kept while the panels' chunks pass by

// The sums of a group's outputs, (rows, 16 kPanels), go through the epilogue.
inline void finish_rows(const LinearTask& task, const float* acc, int64_t row0, int64_t row1) {
  for (int64_t row = row0; row < row1; ++row, acc += 16 * kPanels)
    for (int64_t at = 0; at < 16 * kPanels && task.output + at < task.outputs; at += 16) {
      const int64_t left = task.outputs - task.output - at;
      finish(task.epilogue, load(acc + at), row, task.output + at, left < 16 ? static_cast<int>(left) : 16);
    }
}

template <class W>
void linear_float(const LinearTask& task) {
  constexpr int P = kPanels;
  const Packed& x = *task.x;
  const GroupedPanels<W, P> w{reinterpret_cast<const typename W::Stored*>(task.group)};
  float* acc = reinterpret_cast<float*>(task.scratch);
  for (int64_t t0 = task.tile_begin; t0 < task.tile_end; t0 += kTilesAtOnce) {
    const int64_t t1 = t0 + kTilesAtOnce < task.tile_end ? t0 + kTilesAtOnce : task.tile_end;
    const int64_t row0 = tile_start(x.rows, kTileCols, t0), row1 = tile_start(x.rows, kTileCols, t1);
    for (int64_t k = 0; k < x.cols; k += kFloatChunk) {
      const int64_t n = x.cols - k < kFloatChunk ? x.cols - k : kFloatChunk;
      for (int64_t t = t0; t < t1; ++t) {
        const int64_t row = tile_start(x.rows, kTileCols, t);
        const int cols = static_cast<int>(tile_start(x.rows, kTileCols, t + 1) - row);
        const ChunkTile values{x.values + k * x.rows + row * kFloatChunk};
        float* a = acc + (row - row0) * 16 * P;
        for_columns<kTileCols>(cols, [&]<int C>() { float_chunk<P, C>(w.from(k), n, values, a, 16 * P, k == 0); });
      }
    }
    finish_rows(task, acc, row0, row1);
  }
}

}  // namespace
}  // namespace ke::cpu::KE_ISA
