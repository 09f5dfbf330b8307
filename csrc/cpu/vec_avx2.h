// The vector vocabulary in AVX2 + FMA + F16C: 16 lanes are two registers. Meanings: vec_scalar.h. Without dot4 and
// scale_lanes, which are quant_madd.inl's and vec_avxvnni.h's.
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace ke::cpu::KE_ISA {
namespace {

constexpr int kTileCols = 6;  // 2 x 6 accumulators + 2 weights + 1 broadcast of 16 registers
#ifndef KE_PANELS
#define KE_PANELS 1
#endif
constexpr int kPanels = KE_PANELS;
constexpr int kTilePanels = 1;
constexpr int kQuantCols = kTileCols;
constexpr int kQuantSums = kTileCols;
constexpr int kDirectRows = 2, kDirectRows4 = 2, kDirectRows6 = 2;

struct f32x16 {
  __m256 a, b;
};
struct i32x16 {
  __m256i a, b;
};
struct u8x64 {
  __m256i a, b;
};

inline __m256i load_si(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void store_si(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

inline f32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, f32x16 x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline f32x16 load_n(const float* p, int n) {
  if (n == 16) return load(p);
  alignas(32) float lanes[16] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
inline void store_n(float* p, f32x16 x, int n) {
  if (n == 16) return store(p, x);
  alignas(32) float lanes[16];
  store(lanes, x);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}
inline f32x16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline f32x16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline f32x16 add(f32x16 x, f32x16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline f32x16 sub(f32x16 x, f32x16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline f32x16 mul(f32x16 x, f32x16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline f32x16 div(f32x16 x, f32x16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline f32x16 fma(f32x16 x, f32x16 y, f32x16 z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline f32x16 max(f32x16 x, f32x16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline f32x16 min(f32x16 x, f32x16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline f32x16 abs(f32x16 x) {
  const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return {_mm256_and_ps(x.a, mask), _mm256_and_ps(x.b, mask)};
}
inline f32x16 select_less(f32x16 x, f32x16 y, f32x16 yes, f32x16 no) {
  return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
          _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
}
inline __m256 load_2x4(const float* p, int64_t stride) {  // 4 floats each of rows 0, 4
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * stride), 1);
}
inline void transpose_4(const float* p, int64_t stride, __m256 (&to)[4]) {  // 8 rows
  const __m256 r0 = load_2x4(p, stride), r1 = load_2x4(p + stride, stride), r2 = load_2x4(p + 2 * stride, stride),
               r3 = load_2x4(p + 3 * stride, stride);
  const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(r0, r1)), b = _mm256_castps_pd(_mm256_unpackhi_ps(r0, r1)),
                c = _mm256_castps_pd(_mm256_unpacklo_ps(r2, r3)), d = _mm256_castps_pd(_mm256_unpackhi_ps(r2, r3));
  to[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
  to[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
  to[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
  to[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
}
inline void transpose_4(const float* p, int64_t stride, f32x16 (&to)[4]) {
  __m256 low[4], high[4];
  transpose_4(p, stride, low);
  transpose_4(p + 8 * stride, stride, high);
  for (int i = 0; i < 4; ++i) to[i] = {low[i], high[i]};
}
inline float sum(f32x16 x) {
  const __m256 s8 = _mm256_add_ps(x.a, x.b);
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}
inline float max_lane(f32x16 x) {
  const __m256 m8 = _mm256_max_ps(x.a, x.b);
  const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
  const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
  return _mm_cvtss_f32(_mm_max_ss(m2, _mm_shuffle_ps(m2, m2, 1)));
}
inline float square_root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

inline f32x16 load_half(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline void store_half(uint16_t* p, f32x16 x) {
  constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, nearest));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, nearest));
}
inline __m256 widen_bfloat(const uint16_t* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline f32x16 load_bfloat(const uint16_t* p) { return {widen_bfloat(p), widen_bfloat(p + 8)}; }

inline i32x16 load(const int32_t* p) { return {load_si(p), load_si(p + 8)}; }
inline void store(int32_t* p, i32x16 x) {
  store_si(p, x.a);
  store_si(p + 8, x.b);
}
inline i32x16 set1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline i32x16 add(i32x16 x, i32x16 y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline i32x16 sub(i32x16 x, i32x16 y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
inline i32x16 mul(i32x16 x, i32x16 y) { return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)}; }
inline i32x16 max(i32x16 x, i32x16 y) { return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }
template <int N>
inline i32x16 shift_left(i32x16 x) {
  return {_mm256_slli_epi32(x.a, N), _mm256_slli_epi32(x.b, N)};
}
template <int N>
inline i32x16 shift_right(i32x16 x) {
  return {_mm256_srai_epi32(x.a, N), _mm256_srai_epi32(x.b, N)};
}
template <int Mask>
inline i32x16 masked(i32x16 x) {
  const __m256i mask = _mm256_set1_epi32(Mask);
  return {_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
}
inline i32x16 bits_of(f32x16 x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
inline f32x16 floats_of_bits(i32x16 x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
inline f32x16 to_float(i32x16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline i32x16 to_int(f32x16 x) {
  constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_cvttps_epi32(_mm256_round_ps(x.a, nearest)), _mm256_cvttps_epi32(_mm256_round_ps(x.b, nearest))};
}
inline void sums_of_16(const int8_t* p, int32_t* to) {
  __m256i s = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), load_si(p)), _mm256_set1_epi16(1));
  s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4e));
  s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xb1));
  to[0] = _mm256_extract_epi32(s, 0);
  to[1] = _mm256_extract_epi32(s, 4);
}
inline int32_t max_lane(i32x16 x) {
  const __m256i m8 = _mm256_max_epi32(x.a, x.b);
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(m8), _mm256_extracti128_si256(m8, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}
inline void store_bytes(int8_t* p, i32x16 x) {  // lanes are within -128 .. 127
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
inline i32x16 load_bytes(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline i32x16 load_bytes(const int8_t* p) {
  return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8)))};
}

inline u8x64 load64(const uint8_t* p) { return {load_si(p), load_si(p + 32)}; }
inline void store64(uint8_t* p, u8x64 x) {
  store_si(p, x.a);
  store_si(p + 32, x.b);
}
inline u8x64 low_nibbles(u8x64 x) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
}
inline u8x64 high_nibbles(u8x64 x) { return low_nibbles({_mm256_srli_epi16(x.a, 4), _mm256_srli_epi16(x.b, 4)}); }
template <int Bit, int Count, int To>
inline __m256i bits_moved(__m256i v) {
  if constexpr (Bit < To) v = _mm256_slli_epi16(v, To - Bit);
  if constexpr (Bit > To) v = _mm256_srli_epi16(v, Bit - To);
  return _mm256_and_si256(v, _mm256_set1_epi8(((1 << Count) - 1) << To));
}
template <int Bit, int Count, int To>
inline u8x64 bits_moved(u8x64 x) {
  return {bits_moved<Bit, Count, To>(x.a), bits_moved<Bit, Count, To>(x.b)};
}
template <int Bit, int Count, int To = 4>
inline u8x64 or_high_bits(u8x64 x, u8x64 y) {
  const u8x64 moved = bits_moved<Bit, Count, To>(y);
  return {_mm256_or_si256(x.a, moved.a), _mm256_or_si256(x.b, moved.b)};
}
inline u8x64 looked_up(const int8_t* table, u8x64 x) {
  const __m256i both = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
  return {_mm256_shuffle_epi8(both, x.a), _mm256_shuffle_epi8(both, x.b)};
}
constexpr int kEightBitOffset = 128;
inline u8x64 eight_bit_codes(u8x64 x) { return x; }

}  // namespace
}  // namespace ke::cpu::KE_ISA
