// The vector vocabulary in plain C++: 16 lanes as an array. It defines what every operation means, and runs anywhere.
#pragma once
#include <stdint.h>
#include <string.h>

namespace ke::cpu::KE_ISA {
namespace {

constexpr int kTileCols = 4;          // columns of a tile: accumulators are 16 lanes x kPanels x kTileCols
constexpr int kPanels = 1;            // panels a tile kernel takes at once
constexpr int kTilePanels = kPanels;  // most that a tile of a quantized product takes
constexpr int kQuantCols = 4;         // columns of a quantized tile
constexpr int kQuantSums = 4;         // sums (columns x panels) that a quantized tile keeps in registers
// Up to this many rows of x weights are unpacked in registers, anew for every tile: 8 bits, 4 bits, more bit planes.
constexpr int kDirectRows = 0, kDirectRows4 = 0, kDirectRows6 = 0;

struct f32x16 {
  float v[16];
};
struct i32x16 {
  int32_t v[16];
};
struct u8x64 {  // 16 lanes x 4 consecutive k
  uint8_t v[64];
};

// Written out in every unrolled kernel these would be megabytes.
#define KE_CALL __attribute__((noinline))
#define KE_LANES for (int i = 0; i < 16; ++i)
#define KE_BYTES for (int i = 0; i < 64; ++i)

inline float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, magnitude = h & 0x7fff;
  uint32_t bits = (magnitude << 13) + (112u << 23);                 // rebias the exponent from 15 to 127
  if (magnitude >= 0x7c00) bits = (magnitude << 13) | 0x7f800000u;  // infinity, NaN
  float f;
  memcpy(&f, &bits, 4);
  if (magnitude < 0x0400) f = static_cast<float>(magnitude) * 5.9604644775390625e-8f;  // subnormal: 2^-24 units
  memcpy(&bits, &f, 4);
  bits |= sign;
  memcpy(&f, &bits, 4);
  return f;
}

inline uint16_t float_to_half(float f) {  // nearest, ties to even
  uint32_t bits;
  memcpy(&bits, &f, 4);
  const uint32_t sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);   // NaN
  if (bits >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // 65520 and above round to infinity
  if (bits < 0x38800000) {  // below 2^-14: adding 0.5 leaves the subnormal, rounded, in the low bits
    float magnitude;
    memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    memcpy(&bits, &magnitude, 4);
    return static_cast<uint16_t>(sign | (bits - 0x3f000000));
  }
  return static_cast<uint16_t>(sign | ((bits - 0x38000000 + 0xfff + (bits >> 13 & 1)) >> 13));
}

inline f32x16 load(const float* p) {
  f32x16 r;
  memcpy(&r, p, 64);
  return r;
}
inline void store(float* p, f32x16 a) { memcpy(p, &a, 64); }
inline f32x16 load_n(const float* p, int n) {
  f32x16 r{};
  memcpy(&r, p, n * sizeof(float));
  return r;
}  // rest zero
inline void store_n(float* p, f32x16 a, int n) { memcpy(p, &a, n * sizeof(float)); }
inline f32x16 set1(float x) {
  f32x16 r;
  KE_LANES r.v[i] = x;
  return r;
}
inline f32x16 zero() { return f32x16{}; }
inline f32x16 add(f32x16 a, f32x16 b) {
  KE_LANES a.v[i] += b.v[i];
  return a;
}
inline f32x16 sub(f32x16 a, f32x16 b) {
  KE_LANES a.v[i] -= b.v[i];
  return a;
}
inline f32x16 mul(f32x16 a, f32x16 b) {
  KE_LANES a.v[i] *= b.v[i];
  return a;
}
inline f32x16 div(f32x16 a, f32x16 b) {
  KE_LANES a.v[i] /= b.v[i];
  return a;
}
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
  KE_LANES c.v[i] += a.v[i] * b.v[i];
  return c;
}  // rounds once or twice
inline f32x16 max(f32x16 a, f32x16 b) {
  KE_LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return a;
}
inline f32x16 min(f32x16 a, f32x16 b) {
  KE_LANES a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
  return a;
}
inline f32x16 abs(f32x16 a) {
  KE_LANES a.v[i] = a.v[i] < 0 ? -a.v[i] : a.v[i];
  return a;
}
inline f32x16 select_less(f32x16 a, f32x16 b, f32x16 yes, f32x16 no) {  // a < b ? yes : no
  KE_LANES no.v[i] = a.v[i] < b.v[i] ? yes.v[i] : no.v[i];
  return no;
}
// to[i][lane] = p[lane * stride + i]: four columns of 16 rows.
inline void transpose_4(const float* p, int64_t stride, f32x16 (&to)[4]) {
  for (int j = 0; j < 4; ++j) KE_LANES to[j].v[i] = p[i * stride + j];
}
// The sum in a fixed order: halves are added until one lane is left.
inline float sum(f32x16 a) {
  for (int n = 8; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) a.v[i] += a.v[i + n];
  return a.v[0];
}
inline float max_lane(f32x16 a) {
  for (int i = 1; i < 16; ++i) a.v[0] = a.v[i] > a.v[0] ? a.v[i] : a.v[0];
  return a.v[0];
}
inline float square_root(float x) { return __builtin_sqrtf(x); }

// 16 stored weights (or cached keys, values) as floats.
KE_CALL f32x16 load_half(const uint16_t* p) {
  f32x16 r;
  KE_LANES r.v[i] = half_to_float(p[i]);
  return r;
}
inline void store_half(uint16_t* p, f32x16 a) { KE_LANES p[i] = float_to_half(a.v[i]); }
inline f32x16 load_bfloat(const uint16_t* p) {
  uint32_t bits[16];
  KE_LANES bits[i] = static_cast<uint32_t>(p[i]) << 16;
  f32x16 r;
  memcpy(&r, bits, 64);
  return r;
}

inline i32x16 load(const int32_t* p) {
  i32x16 r;
  memcpy(&r, p, 64);
  return r;
}
inline void store(int32_t* p, i32x16 a) { memcpy(p, &a, 64); }
inline i32x16 set1(int32_t x) {
  i32x16 r;
  KE_LANES r.v[i] = x;
  return r;
}
inline i32x16 add(i32x16 a, i32x16 b) {
  KE_LANES a.v[i] += b.v[i];
  return a;
}
inline i32x16 sub(i32x16 a, i32x16 b) {
  KE_LANES a.v[i] -= b.v[i];
  return a;
}
inline i32x16 mul(i32x16 a, i32x16 b) {
  KE_LANES a.v[i] *= b.v[i];
  return a;
}
inline i32x16 max(i32x16 a, i32x16 b) {
  KE_LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return a;
}
template <int N>
inline i32x16 shift_left(i32x16 a) {
  KE_LANES a.v[i] = static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) << N);
  return a;
}
template <int N>
inline i32x16 shift_right(i32x16 a) {  // towards minus infinity
  KE_LANES a.v[i] >>= N;
  return a;
}
// The bits of Mask.
template <int Mask>
inline i32x16 masked(i32x16 a) {
  KE_LANES a.v[i] &= Mask;
  return a;
}
inline i32x16 bits_of(f32x16 a) {
  i32x16 r;
  memcpy(&r, &a, 64);
  return r;
}
inline f32x16 floats_of_bits(i32x16 a) {
  f32x16 r;
  memcpy(&r, &a, 64);
  return r;
}
inline f32x16 to_float(i32x16 a) {
  f32x16 r;
  KE_LANES r.v[i] = static_cast<float>(a.v[i]);
  return r;
}
// Nearest, ties to even, for |a| < 2^21: adding 1.5 * 2^23 leaves the integer in the low bits.
inline i32x16 to_int(f32x16 a) { return sub(bits_of(add(a, set1(12582912.0f))), set1(0x4b400000)); }
inline int32_t max_lane(i32x16 a) {
  for (int i = 1; i < 16; ++i) a.v[0] = a.v[i] > a.v[0] ? a.v[i] : a.v[0];
  return a.v[0];
}
// The sums of 2 x 16 bytes.
inline void sums_of_16(const int8_t* p, int32_t* to) {
  for (int j = 0; j < 2; ++j) {
    to[j] = 0;
    KE_LANES to[j] += p[16 * j + i];
  }
}
inline void store_bytes(int8_t* p, i32x16 a) { KE_LANES p[i] = static_cast<int8_t>(a.v[i]); }
inline i32x16 load_bytes(const uint8_t* p) {
  i32x16 r;
  KE_LANES r.v[i] = p[i];
  return r;
}
inline i32x16 load_bytes(const int8_t* p) {
  i32x16 r;
  KE_LANES r.v[i] = p[i];
  return r;
}

inline u8x64 load64(const uint8_t* p) {
  u8x64 r;
  memcpy(&r, p, 64);
  return r;
}
inline void store64(uint8_t* p, u8x64 a) { memcpy(p, &a, 64); }
KE_CALL u8x64 low_nibbles(u8x64 a) {
  KE_BYTES a.v[i] &= 15;
  return a;
}
KE_CALL u8x64 high_nibbles(u8x64 a) {
  KE_BYTES a.v[i] >>= 4;
  return a;
}
// Bits [Bit, Bit + Count) of a, moved to bit To.
template <int Bit, int Count, int To>
KE_CALL u8x64 bits_moved(u8x64 a) {
  KE_BYTES a.v[i] = static_cast<uint8_t>((a.v[i] >> Bit & ((1 << Count) - 1)) << To);
  return a;
}
// a | bits [Bit, Bit + Count) of b, moved to bit To.
template <int Bit, int Count, int To = 4>
KE_CALL u8x64 or_high_bits(u8x64 a, u8x64 b) {
  KE_BYTES a.v[i] = static_cast<uint8_t>(a.v[i] | (b.v[i] >> Bit & ((1 << Count) - 1)) << To);
  return a;
}
// The bytes of a table of 16, 16-byte aligned, at the places 0..15 that the bytes of a say.
KE_CALL u8x64 looked_up(const int8_t* table, u8x64 a) {
  KE_BYTES a.v[i] = static_cast<uint8_t>(table[a.v[i]]);
  return a;
}
// Codes of eight bits as dot4 wants them: as stored, 128 too high; or signed, where dot4 is.
constexpr int kEightBitOffset = 128;
inline u8x64 eight_bit_codes(u8x64 x) { return x; }
// The form in which a sub-block's integer scales wait for the tile kernels.
inline i32x16 scale_lanes(i32x16 a) { return a; }
// 16 integer scales in units of 1 / kShortScaleUnit, and acc + a * scale for -2^15 <= a < 2^15.
constexpr int kShortScaleUnit = 1;
inline i32x16 load_short_scales(const int8_t* p) { return load_bytes(p); }
inline i32x16 add_short_products(i32x16 acc, i32x16 a, i32x16 scale) { return add(acc, mul(a, scale)); }
// acc[lane] += sum over 4 k of w (unsigned) * x (signed codes of one column, the same for every lane).
KE_CALL i32x16 dot4(i32x16 acc, u8x64 w, const int8_t* x) {
  KE_LANES acc.v[i] += w.v[4 * i] * x[0] + w.v[4 * i + 1] * x[1] + w.v[4 * i + 2] * x[2] + w.v[4 * i + 3] * x[3];
  return acc;
}

#undef KE_LANES
#undef KE_BYTES
#undef KE_CALL

}  // namespace
}  // namespace ke::cpu::KE_ISA
