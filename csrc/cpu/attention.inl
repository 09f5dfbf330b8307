// What both ways of attention are made of: scores of a tile of rows, from floats or codes, and sums over panels.
#pragma once
#include "cpu/linear_float.inl"
#include "cpu/quant_tiles.inl"
#include "cpu/quantize.inl"

namespace ke::cpu::KE_ISA {
namespace {

// Floats between the score rows of a tile; the odd vector keeps rows of a power-of-two length out of one cache set.
static constexpr int64_t score_stride(int64_t positions) { return (positions + 15) / 16 * 16 + 16; }

// acc (C, 16 per panel) takes, or with `more` has added, the sums over n of `panels` panels of weights times x. Panels
// go P at once, those left over P / 2 at once, and so on: six of them (a head of 96) as four and two.
template <class W, int C, int P = kPanels, class X>
inline void float_panels(const typename W::Stored* w, int64_t panel, int64_t panels, int64_t n, X x, float* acc,
                         int64_t acc_stride, bool more) {
  int64_t done = 0;
  for (; done + P <= panels; done += P)
    float_tile<P, C>(SeparatePanels<W, P>{w + done * panel, panel}, n, x, acc + 16 * done, acc_stride, more);
  if constexpr (P > 1)
    if (done < panels)
      float_panels<W, C, P / 2>(w + done * panel, panel, panels - done, n, x, acc + 16 * done, acc_stride, more);
}

// The scaled queries of a tile as float_scores wants them, [head_dim][C].
template <int C>
inline void pack_queries(const QueryRows& rows, float* q) {
  for (int c = 0; c < C; ++c)
    for (int64_t i = 0; i < rows.head_dim; ++i) q[i * C + c] = rows.q[c * rows.stride + i] * rows.scale;
}

// scores[c][stride] of C packed queries and `panels` panels of keys.
template <class W, int C>
inline void float_scores(const float* q, int64_t head_dim, const void* keys, int64_t panels, float* scores,
                         int64_t stride) {
  float_panels<W, C>(static_cast<const typename W::Stored*>(keys), head_dim * 16, panels, head_dim, PackedTile<C>{q},
                     scores, stride, false);
}

// Adds the first n of a row's bias; both may be read up to the next multiple of 16.
inline void add_bias(const float* bias, int64_t n, float* scores) {
  for (int64_t i = 0; i < n; i += 16) store(scores + i, add(load(scores + i), load(bias + i)));
}

constexpr float kLog2E = 1.44269504088896f;

// 2^x for x <= 0, relative error below 3e-6; 2^-100 instead of less, which is nothing beside a code's unit and, times
// it, no denormal number: those are slow.
inline f32x16 exp2_coarse(f32x16 x) {
  const f32x16 magic = set1(12582912.0f);  // see exp
  const f32x16 z = max(set1(-100.0f), x);  // this order lets NaN through
  const f32x16 t = add(z, magic);
  const f32x16 r = sub(z, sub(t, magic));
  f32x16 p = set1(9.5701013e-3f);  // minimax of degree 4 on |r| <= 1/2
  p = fma(p, r, set1(5.5917861e-2f));
  p = fma(p, r, set1(2.4024745e-1f));
  p = fma(p, r, set1(6.9312181e-1f));
  p = fma(p, r, set1(9.9999926e-1f));
  return floats_of_bits(add(bits_of(p), shift_left<23>(bits_of(t))));
}

// The queries of a tile as codes. float(sum of products) * scale[c] * the key's scale is a score.
template <int C>
struct QueryCodes {
  alignas(64) int8_t codes[C][kMaxHeadDim];
  float scale[C];
  int32_t start[C];  // of a sum: what codes that are too high add

  explicit QueryCodes(const QueryRows& rows) {
    for (int c = 0; c < C; ++c) {
      scale[c] = quantize_block(rows.q + c * rows.stride, static_cast<int>(rows.head_dim), codes[c]) * rows.scale;
      int32_t sum = 0;
      for (int64_t i = 0; i < rows.head_dim; ++i) sum += codes[c][i];
      start[c] = -CodeProducts::offset * sum;
    }
  }
};

// The scores of P panels of keys from `first` on.
template <int P, int C>
inline void code_panels(const QueryCodes<C>& q, int64_t d, const uint8_t* keys, const float* key_scales, int64_t first,
                        float* scores, int64_t stride) {
  keys += first * d * 16;
  i32x16 s[C][P];
  each<C, P>([&]<int c, int p>() KE_LAMBDA { s[c][p] = set1(q.start[c]); });
  for (int64_t g = 0; g < d / 4; ++g) {
    u8x64 v[P];
    each<P>([&]<int p>() KE_LAMBDA { v[p] = CodeProducts::weights(load64(keys + p * d * 16 + g * 64)); });
    each<C, P>([&]<int c, int p>() KE_LAMBDA { s[c][p] = CodeProducts::add(s[c][p], v[p], q.codes[c] + g * 4); });
  }
  each<P>([&]<int p>() KE_LAMBDA {
    const int64_t at = (first + p) * 16;
    const f32x16 key_scale = load(key_scales + at);
    each<C>([&]<int c>() KE_LAMBDA {
      store(scores + c * stride + at, mul(mul(to_float(s[c][p]), set1(q.scale[c])), key_scale));
    });
  });
}

template <int C>
inline void code_scores(const QueryCodes<C>& q, int64_t head_dim, const void* keys, const float* key_scales,
                        int64_t panels, float* scores, int64_t stride) {
  constexpr int P = tile_panels(C);
  const uint8_t* codes = static_cast<const uint8_t*>(keys);
  int64_t done = 0;
  for (; done + P <= panels; done += P) code_panels<P, C>(q, head_dim, codes, key_scales, done, scores, stride);
  for (; done < panels; ++done) code_panels<1, C>(q, head_dim, codes, key_scales, done, scores, stride);
}

}  // namespace
}  // namespace ke::cpu::KE_ISA
