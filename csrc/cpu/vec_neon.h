// The vector vocabulary in NEON with the dot-product extension: 16 lanes are four registers. Meanings: vec_scalar.h.
// With i8mm dot4 multiplies unsigned with signed bytes; without it both are signed, which every code below 128 is too,
// and Q8_0's codes + 128 are made so by a flipped bit.
#pragma once
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

namespace ke::cpu::KE_ISA {
namespace {

constexpr int kTileCols = 6;  // 4 x 6 accumulators + 4 weights + 1 broadcast of 32 registers
constexpr int kPanels = 1;
constexpr int kTilePanels = kPanels;
constexpr int kQuantCols = kTileCols;
constexpr int kQuantSums = kTileCols;
constexpr int kDirectRows = 2, kDirectRows4 = 2, kDirectRows6 = 2;

struct f32x16 {
  float32x4_t a, b, c, d;
};
struct i32x16 {
  int32x4_t a, b, c, d;
};
struct u8x64 {
  uint8x16_t a, b, c, d;
};

inline f32x16 load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}; }
inline void store(float* p, f32x16 x) {
  vst1q_f32(p, x.a);
  vst1q_f32(p + 4, x.b);
  vst1q_f32(p + 8, x.c);
  vst1q_f32(p + 12, x.d);
}
inline f32x16 load_n(const float* p, int n) {
  if (n == 16) return load(p);
  float lanes[16] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
inline void store_n(float* p, f32x16 x, int n) {
  if (n == 16) return store(p, x);
  float lanes[16];
  store(lanes, x);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}
inline f32x16 set1(float x) {
  const float32x4_t v = vdupq_n_f32(x);
  return {v, v, v, v};
}
inline f32x16 zero() { return set1(0.0f); }
inline f32x16 add(f32x16 x, f32x16 y) {
  return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)};
}
inline f32x16 sub(f32x16 x, f32x16 y) {
  return {vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d)};
}
inline f32x16 mul(f32x16 x, f32x16 y) {
  return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)};
}
inline f32x16 div(f32x16 x, f32x16 y) {
  return {vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d)};
}
inline f32x16 fma(f32x16 x, f32x16 y, f32x16 z) {
  return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c), vfmaq_f32(z.d, x.d, y.d)};
}
// A NaN in either operand stays one; the definition lets the second operand's through.
inline f32x16 max(f32x16 x, f32x16 y) {
  return {vmaxq_f32(x.a, y.a), vmaxq_f32(x.b, y.b), vmaxq_f32(x.c, y.c), vmaxq_f32(x.d, y.d)};
}
inline f32x16 min(f32x16 x, f32x16 y) {
  return {vminq_f32(x.a, y.a), vminq_f32(x.b, y.b), vminq_f32(x.c, y.c), vminq_f32(x.d, y.d)};
}
inline f32x16 abs(f32x16 x) { return {vabsq_f32(x.a), vabsq_f32(x.b), vabsq_f32(x.c), vabsq_f32(x.d)}; }
inline f32x16 select_less(f32x16 x, f32x16 y, f32x16 yes, f32x16 no) {
  return {vbslq_f32(vcltq_f32(x.a, y.a), yes.a, no.a), vbslq_f32(vcltq_f32(x.b, y.b), yes.b, no.b),
          vbslq_f32(vcltq_f32(x.c, y.c), yes.c, no.c), vbslq_f32(vcltq_f32(x.d, y.d), yes.d, no.d)};
}
// Register i has column i of 4 rows.
struct Columns {
  float32x4_t column[4];
};
inline Columns transpose_4x4(const float* p, int64_t stride) {
  const float32x4_t r0 = vld1q_f32(p), r1 = vld1q_f32(p + stride), r2 = vld1q_f32(p + 2 * stride),
                    r3 = vld1q_f32(p + 3 * stride);
  const float64x2_t e01 = vreinterpretq_f64_f32(vtrn1q_f32(r0, r1)), o01 = vreinterpretq_f64_f32(vtrn2q_f32(r0, r1)),
                    e23 = vreinterpretq_f64_f32(vtrn1q_f32(r2, r3)), o23 = vreinterpretq_f64_f32(vtrn2q_f32(r2, r3));
  return {{vreinterpretq_f32_f64(vtrn1q_f64(e01, e23)), vreinterpretq_f32_f64(vtrn1q_f64(o01, o23)),
           vreinterpretq_f32_f64(vtrn2q_f64(e01, e23)), vreinterpretq_f32_f64(vtrn2q_f64(o01, o23))}};
}
inline void transpose_4(const float* p, int64_t stride, f32x16 (&to)[4]) {
  const Columns a = transpose_4x4(p, stride), b = transpose_4x4(p + 4 * stride, stride),
                c = transpose_4x4(p + 8 * stride, stride), d = transpose_4x4(p + 12 * stride, stride);
  for (int i = 0; i < 4; ++i) to[i] = {a.column[i], b.column[i], c.column[i], d.column[i]};
}
inline float sum(f32x16 x) {
  const float32x4_t s4 = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
  const float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
  return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}
inline float max_lane(f32x16 x) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.a, x.b), vmaxq_f32(x.c, x.d))); }
inline float square_root(float x) { return __builtin_sqrtf(x); }

inline float32x4_t load_half_4(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
inline f32x16 load_half(const uint16_t* p) {
  return {load_half_4(p), load_half_4(p + 4), load_half_4(p + 8), load_half_4(p + 12)};
}
inline void store_half(uint16_t* p, f32x16 x) {
  vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x.a)));
  vst1_u16(p + 4, vreinterpret_u16_f16(vcvt_f16_f32(x.b)));
  vst1_u16(p + 8, vreinterpret_u16_f16(vcvt_f16_f32(x.c)));
  vst1_u16(p + 12, vreinterpret_u16_f16(vcvt_f16_f32(x.d)));
}
inline float32x4_t load_bfloat_4(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
inline f32x16 load_bfloat(const uint16_t* p) {
  return {load_bfloat_4(p), load_bfloat_4(p + 4), load_bfloat_4(p + 8), load_bfloat_4(p + 12)};
}

inline i32x16 load(const int32_t* p) { return {vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)}; }
inline void store(int32_t* p, i32x16 x) {
  vst1q_s32(p, x.a);
  vst1q_s32(p + 4, x.b);
  vst1q_s32(p + 8, x.c);
  vst1q_s32(p + 12, x.d);
}
inline i32x16 set1(int32_t x) {
  const int32x4_t v = vdupq_n_s32(x);
  return {v, v, v, v};
}
inline i32x16 add(i32x16 x, i32x16 y) {
  return {vaddq_s32(x.a, y.a), vaddq_s32(x.b, y.b), vaddq_s32(x.c, y.c), vaddq_s32(x.d, y.d)};
}
inline i32x16 sub(i32x16 x, i32x16 y) {
  return {vsubq_s32(x.a, y.a), vsubq_s32(x.b, y.b), vsubq_s32(x.c, y.c), vsubq_s32(x.d, y.d)};
}
inline i32x16 mul(i32x16 x, i32x16 y) {
  return {vmulq_s32(x.a, y.a), vmulq_s32(x.b, y.b), vmulq_s32(x.c, y.c), vmulq_s32(x.d, y.d)};
}
inline i32x16 max(i32x16 x, i32x16 y) {
  return {vmaxq_s32(x.a, y.a), vmaxq_s32(x.b, y.b), vmaxq_s32(x.c, y.c), vmaxq_s32(x.d, y.d)};
}
template <int N>
inline i32x16 shift_left(i32x16 x) {
  return {vshlq_n_s32(x.a, N), vshlq_n_s32(x.b, N), vshlq_n_s32(x.c, N), vshlq_n_s32(x.d, N)};
}
template <int N>
inline i32x16 shift_right(i32x16 x) {
  return {vshrq_n_s32(x.a, N), vshrq_n_s32(x.b, N), vshrq_n_s32(x.c, N), vshrq_n_s32(x.d, N)};
}
template <int Mask>
inline i32x16 masked(i32x16 x) {
  const int32x4_t mask = vdupq_n_s32(Mask);
  return {vandq_s32(x.a, mask), vandq_s32(x.b, mask), vandq_s32(x.c, mask), vandq_s32(x.d, mask)};
}
inline i32x16 bits_of(f32x16 x) {
  return {vreinterpretq_s32_f32(x.a), vreinterpretq_s32_f32(x.b), vreinterpretq_s32_f32(x.c),
          vreinterpretq_s32_f32(x.d)};
}
inline f32x16 floats_of_bits(i32x16 x) {
  return {vreinterpretq_f32_s32(x.a), vreinterpretq_f32_s32(x.b), vreinterpretq_f32_s32(x.c),
          vreinterpretq_f32_s32(x.d)};
}
inline f32x16 to_float(i32x16 x) {
  return {vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b), vcvtq_f32_s32(x.c), vcvtq_f32_s32(x.d)};
}
inline i32x16 to_int(f32x16 x) {
  return {vcvtnq_s32_f32(x.a), vcvtnq_s32_f32(x.b), vcvtnq_s32_f32(x.c), vcvtnq_s32_f32(x.d)};
}
inline void sums_of_16(const int8_t* p, int32_t* to) {
  to[0] = vaddlvq_s8(vld1q_s8(p));
  to[1] = vaddlvq_s8(vld1q_s8(p + 16));
}
inline int32_t max_lane(i32x16 x) { return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.a, x.b), vmaxq_s32(x.c, x.d))); }
inline void store_bytes(int8_t* p, i32x16 x) {
  const int16x8_t low = vcombine_s16(vmovn_s32(x.a), vmovn_s32(x.b)),
                  high = vcombine_s16(vmovn_s32(x.c), vmovn_s32(x.d));
  vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}
inline i32x16 widen(int16x8_t low, int16x8_t high) {
  return {vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)), vmovl_s16(vget_low_s16(high)),
          vmovl_s16(vget_high_s16(high))};
}
inline i32x16 load_bytes(const uint8_t* p) {
  const uint8x16_t v = vld1q_u8(p);
  return widen(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(v))), vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(v))));
}
inline i32x16 load_bytes(const int8_t* p) {
  const int8x16_t v = vld1q_s8(p);
  return widen(vmovl_s8(vget_low_s8(v)), vmovl_s8(vget_high_s8(v)));
}

inline u8x64 load64(const uint8_t* p) { return {vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}; }
inline void store64(uint8_t* p, u8x64 x) {
  vst1q_u8(p, x.a);
  vst1q_u8(p + 16, x.b);
  vst1q_u8(p + 32, x.c);
  vst1q_u8(p + 48, x.d);
}
inline u8x64 low_nibbles(u8x64 x) {
  return {vandq_u8(x.a, vdupq_n_u8(15)), vandq_u8(x.b, vdupq_n_u8(15)), vandq_u8(x.c, vdupq_n_u8(15)),
          vandq_u8(x.d, vdupq_n_u8(15))};
}
inline u8x64 high_nibbles(u8x64 x) {
  return {vshrq_n_u8(x.a, 4), vshrq_n_u8(x.b, 4), vshrq_n_u8(x.c, 4), vshrq_n_u8(x.d, 4)};
}
template <int Bit, int Count, int To>
inline uint8x16_t bits_moved(uint8x16_t v) {
  if constexpr (Bit < To) v = vshlq_n_u8(v, To - Bit);
  if constexpr (Bit > To) v = vshrq_n_u8(v, Bit - To);
  return vandq_u8(v, vdupq_n_u8(((1 << Count) - 1) << To));
}
template <int Bit, int Count, int To>
inline u8x64 bits_moved(u8x64 x) {
  return {bits_moved<Bit, Count, To>(x.a), bits_moved<Bit, Count, To>(x.b), bits_moved<Bit, Count, To>(x.c),
          bits_moved<Bit, Count, To>(x.d)};
}
template <int Bit, int Count, int To = 4>
inline u8x64 or_high_bits(u8x64 x, u8x64 y) {
  const u8x64 moved = bits_moved<Bit, Count, To>(y);
  return {vorrq_u8(x.a, moved.a), vorrq_u8(x.b, moved.b), vorrq_u8(x.c, moved.c), vorrq_u8(x.d, moved.d)};
}
inline u8x64 looked_up(const int8_t* table, u8x64 x) {
  const uint8x16_t t = vreinterpretq_u8_s8(vld1q_s8(table));
  return {vqtbl1q_u8(t, x.a), vqtbl1q_u8(t, x.b), vqtbl1q_u8(t, x.c), vqtbl1q_u8(t, x.d)};
}
inline i32x16 scale_lanes(i32x16 x) { return x; }
constexpr int kShortScaleUnit = 1;
inline i32x16 load_short_scales(const int8_t* p) { return load_bytes(p); }
inline i32x16 add_short_products(i32x16 acc, i32x16 x, i32x16 scale) {
  return {vmlaq_s32(acc.a, x.a, scale.a), vmlaq_s32(acc.b, x.b, scale.b), vmlaq_s32(acc.c, x.c, scale.c),
          vmlaq_s32(acc.d, x.d, scale.d)};
}
inline int8x16_t broadcast_codes(const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
#ifdef __ARM_FEATURE_MATMUL_INT8
constexpr int kEightBitOffset = 128;
inline u8x64 eight_bit_codes(u8x64 x) { return x; }
inline i32x16 dot4(i32x16 acc, u8x64 w, const int8_t* x) {
  const int8x16_t b = broadcast_codes(x);
  return {vusdotq_s32(acc.a, w.a, b), vusdotq_s32(acc.b, w.b, b), vusdotq_s32(acc.c, w.c, b),
          vusdotq_s32(acc.d, w.d, b)};
}
#else
constexpr int kEightBitOffset = 0;
inline u8x64 eight_bit_codes(u8x64 x) {
  return {veorq_u8(x.a, vdupq_n_u8(0x80)), veorq_u8(x.b, vdupq_n_u8(0x80)), veorq_u8(x.c, vdupq_n_u8(0x80)),
          veorq_u8(x.d, vdupq_n_u8(0x80))};
}
inline int32x4_t dot4(int32x4_t acc, uint8x16_t w, int8x16_t b) { return vdotq_s32(acc, vreinterpretq_s8_u8(w), b); }
inline i32x16 dot4(i32x16 acc, u8x64 w, const int8_t* x) {
  const int8x16_t b = broadcast_codes(x);
  return {dot4(acc.a, w.a, b), dot4(acc.b, w.b, b), dot4(acc.c, w.c, b), dot4(acc.d, w.d, b)};
}
#endif

}  // namespace
}  // namespace ke::cpu::KE_ISA
