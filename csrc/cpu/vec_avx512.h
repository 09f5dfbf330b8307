// The vector vocabulary in AVX-512 with VNNI: 16 lanes are one register. Meanings: vec_scalar.h.
#pragma once
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Wmaybe-uninitialized"  // GCC 12's own immintrin.h sets undefined values from themselves
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace ke::cpu::KE_ISA {
namespace {

constexpr int kTileCols = 6;  // 4 x 6 accumulators + 4 weights + 1 broadcast of 32 registers
constexpr int kPanels = 4;
constexpr int kTilePanels = kPanels;
constexpr int kQuantCols = 6;
constexpr int kQuantSums = 12;  // of sub-blocks, and as many of blocks; 2 weights, 1 broadcast: 27 of 32 registers
constexpr int kDirectRows = 1 << 20, kDirectRows4 = 24, kDirectRows6 = 12;  // measured where the two ways cross

struct f32x16 {
  __m512 v;
};
struct i32x16 {
  __m512i v;
};
struct u8x64 {
  __m512i v;
};

inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }

inline f32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, f32x16 a) { _mm512_storeu_ps(p, a.v); }
inline f32x16 load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
inline void store_n(float* p, f32x16 a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }
inline f32x16 set1(float x) { return {_mm512_set1_ps(x)}; }
inline f32x16 zero() { return {_mm512_setzero_ps()}; }
inline f32x16 add(f32x16 a, f32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline f32x16 sub(f32x16 a, f32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline f32x16 mul(f32x16 a, f32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline f32x16 div(f32x16 a, f32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline f32x16 max(f32x16 a, f32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline f32x16 min(f32x16 a, f32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline f32x16 abs(f32x16 a) { return {_mm512_abs_ps(a.v)}; }
inline f32x16 select_less(f32x16 a, f32x16 b, f32x16 yes, f32x16 no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
inline __m512 load_4x4(const float* p, int64_t stride) {  // 4 floats each of rows 0, 4, 8, 12
  __m512 r = _mm512_castps128_ps512(_mm_loadu_ps(p));
  r = _mm512_insertf32x4(r, _mm_loadu_ps(p + 4 * stride), 1);
  r = _mm512_insertf32x4(r, _mm_loadu_ps(p + 8 * stride), 2);
  return _mm512_insertf32x4(r, _mm_loadu_ps(p + 12 * stride), 3);
}
inline void transpose_4(const float* p, int64_t stride, f32x16 (&to)[4]) {
  const __m512 r0 = load_4x4(p, stride), r1 = load_4x4(p + stride, stride), r2 = load_4x4(p + 2 * stride, stride),
               r3 = load_4x4(p + 3 * stride, stride);
  const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(r0, r1)), b = _mm512_castps_pd(_mm512_unpackhi_ps(r0, r1)),
                c = _mm512_castps_pd(_mm512_unpacklo_ps(r2, r3)), d = _mm512_castps_pd(_mm512_unpackhi_ps(r2, r3));
  to[0] = {_mm512_castpd_ps(_mm512_unpacklo_pd(a, c))};
  to[1] = {_mm512_castpd_ps(_mm512_unpackhi_pd(a, c))};
  to[2] = {_mm512_castpd_ps(_mm512_unpacklo_pd(b, d))};
  to[3] = {_mm512_castpd_ps(_mm512_unpackhi_pd(b, d))};
}
inline float sum(f32x16 a) {
  const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}
inline float max_lane(f32x16 a) { return _mm512_reduce_max_ps(a.v); }
inline float square_root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

inline f32x16 load_half(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store_half(uint16_t* p, f32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline f32x16 load_bfloat(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}

inline i32x16 load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store(int32_t* p, i32x16 a) { _mm512_storeu_si512(p, a.v); }
inline i32x16 set1(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline i32x16 add(i32x16 a, i32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline i32x16 sub(i32x16 a, i32x16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline i32x16 mul(i32x16 a, i32x16 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
inline i32x16 max(i32x16 a, i32x16 b) { return {_mm512_max_epi32(a.v, b.v)}; }
template <int N>
inline i32x16 shift_left(i32x16 a) {
  return {_mm512_slli_epi32(a.v, N)};
}
template <int N>
inline i32x16 shift_right(i32x16 a) {
  return {_mm512_srai_epi32(a.v, N)};
}
template <int Mask>
inline i32x16 masked(i32x16 a) {
  return {_mm512_and_si512(a.v, _mm512_set1_epi32(Mask))};
}
inline i32x16 bits_of(f32x16 a) { return {_mm512_castps_si512(a.v)}; }
inline f32x16 floats_of_bits(i32x16 a) { return {_mm512_castsi512_ps(a.v)}; }
inline f32x16 to_float(i32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline i32x16 to_int(f32x16 a) {
  return {_mm512_cvt_roundps_epi32(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline void sums_of_16(const int8_t* p, int32_t* to) {
  const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  __m256i s = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), codes);
  s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4e));
  s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xb1));
  to[0] = _mm256_extract_epi32(s, 0);
  to[1] = _mm256_extract_epi32(s, 4);
}
inline int32_t max_lane(i32x16 a) { return _mm512_reduce_max_epi32(a.v); }
inline void store_bytes(int8_t* p, i32x16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
inline i32x16 load_bytes(const uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline i32x16 load_bytes(const int8_t* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}

inline u8x64 load64(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store64(uint8_t* p, u8x64 a) { _mm512_storeu_si512(p, a.v); }
inline u8x64 low_nibbles(u8x64 a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))}; }
inline u8x64 high_nibbles(u8x64 a) { return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))}; }
template <int Bit, int To>
inline __m512i shift_bytes(__m512i v) {  // bits leave their bytes: to be masked
  if constexpr (Bit < To) return _mm512_slli_epi16(v, To - Bit);
  if constexpr (Bit > To) return _mm512_srli_epi16(v, Bit - To);
  return v;
}
template <int Bit, int Count, int To>
inline u8x64 bits_moved(u8x64 a) {
  return {_mm512_and_si512(shift_bytes<Bit, To>(a.v), _mm512_set1_epi8(((1 << Count) - 1) << To))};
}
template <int Bit, int Count, int To = 4>
inline u8x64 or_high_bits(u8x64 a, u8x64 b) {
  const __m512i mask = _mm512_set1_epi8(((1 << Count) - 1) << To);
  return {_mm512_ternarylogic_epi32(a.v, shift_bytes<Bit, To>(b.v), mask, 0xf8)};  // a | (moved & mask)
}
inline u8x64 looked_up(const int8_t* table, u8x64 a) {
  const __m512i each = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
  return {_mm512_shuffle_epi8(each, a.v)};
}
constexpr int kEightBitOffset = 128;
inline u8x64 eight_bit_codes(u8x64 x) { return x; }
inline i32x16 scale_lanes(i32x16 a) { return a; }
constexpr int kShortScaleUnit = 256;
// In the low 16 bits of their lanes: a scale above a byte of zeros.
inline i32x16 load_short_scales(const int8_t* p) {
  const __m512i all = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m512i zeros = _mm512_set1_epi32(static_cast<int32_t>(0x80800080));  // places that give a zero
  const __m512i places = _mm512_or_si512(
      zeros, _mm512_slli_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), 8));
  return {_mm512_shuffle_epi8(all, places)};
}
inline i32x16 add_short_products(i32x16 acc, i32x16 a, i32x16 scale) {
  return {_mm512_dpwssd_epi32(acc.v, a.v, scale.v)};
}
inline i32x16 dot4(i32x16 acc, u8x64 w, const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  __m512i sum = _mm512_dpbusd_epi32(acc.v, w.v, _mm512_set1_epi32(four));
  asm volatile("" : "+v"(sum));  // or GCC keeps sums of wide tiles on the stack
  return {sum};
}

}  // namespace
}  // namespace ke::cpu::KE_ISA
