// Quantized blocks in registers: loads by lane (layout.h) and the codes of a dword as signed bytes.
#pragma once
#include "cuda/device.cuh"
#include "cuda/layout.h"
#include "quant/blocks.h"

namespace ke::cuda {

template <Format F>
constexpr bool kWholeBytes = F == Format::Q8_0 || F == Format::I8;  // codes of 8 bits

// Bytes of `Bits` bits, those below 2^(bits - 1) standing for negative values: byte - 2^(bits - 1).
template <int Bits>
__device__ __forceinline__ uint32_t recentred(uint32_t v) {
  constexpr uint32_t half = 0x01010101u << (Bits - 1), rest = half - 0x01010101u;
  constexpr uint32_t fill = (0xffu << (Bits - 1) & 0xffu) >> (Bits - 1);  // times the bit: ones from there up
  return (v & rest) | (~v & half) * fill;
}

template <Format F>
constexpr bool kTable = F == Format::IQ4_NL || F == Format::IQ4_XS;  // codes of 4 bits for the values of a table

// Values 4 i .. of that table, as bytes.
constexpr uint32_t table_word(int i) {
  constexpr int8_t values[16] = {KE_TABLE_VALUES};
  uint32_t word = 0;
  for (int j = 0; j < 4; j++) word |= uint32_t{static_cast<uint8_t>(values[4 * i + j])} << (8 * j);
  return word;
}
template <int I>
constexpr uint32_t kTableWord = table_word(I);

// The table's values for the low and the high halves of a word's bytes. A permutation of bytes looks four of them up
// among eight values; a second one chooses by the upper bit between the two eights.
__device__ __forceinline__ void look_up(uint32_t word, uint32_t& low, uint32_t& high) {
  const uint32_t in_eight = word & 0x77777777u, which = 0x32103210u | (word & 0x88888888u) >> 1;
  uint32_t half[2];  // values of the low and high halves of two bytes, in turns
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const uint32_t below = __byte_perm(kTableWord<0>, kTableWord<1>, in_eight >> (16 * i));
    const uint32_t above = __byte_perm(kTableWord<2>, kTableWord<3>, in_eight >> (16 * i));
    half[i] = __byte_perm(below, above, which >> (16 * i));
  }
  low = __byte_perm(half[0], half[1], 0x6420);
  high = __byte_perm(half[0], half[1], 0x7531);
}

// Values 4 t .. 4 t + 3 and 16 + 4 t .. of a sub-block. word: dword t of its chunk (codes of 8 bits: of both its
// chunks; Q2_K, Q3_K: the sub-block's two dwords of low bits); upper: its upper bits (Q3_K, Q5_K: one dword, Q6_K:
// two).
template <Format F>
__device__ __forceinline__ void unpack(const uint32_t (&word)[2], const uint32_t (&upper)[2], int t, uint32_t& low,
                                       uint32_t& high) {
  if constexpr (kWholeBytes<F>) {
    low = word[0], high = word[1];
  } else if constexpr (kTable<F>) {
    look_up(word[0], low, high);
  } else if constexpr (F == Format::Q2_K) {
    low = word[0] >> (2 * t) & 0x03030303u, high = word[1] >> (2 * t) & 0x03030303u;
  } else if constexpr (F == Format::Q3_K) {
    low = recentred<3>((word[0] >> (2 * t) & 0x03030303u) | (upper[0] >> t & 0x01010101u) << 2);
    high = recentred<3>((word[1] >> (2 * t) & 0x03030303u) | (upper[0] >> (t + 4) & 0x01010101u) << 2);
  } else {
    low = word[0] & 0x0f0f0f0fu, high = word[0] >> 4 & 0x0f0f0f0fu;
    if constexpr (F == Format::Q5_K) {
      low |= (upper[0] >> t & 0x01010101u) << 4;
      high |= (upper[0] >> (t + 4) & 0x01010101u) << 4;
    }
    if constexpr (F == Format::Q6_K) {
      low = recentred<6>(low | (upper[0] >> (2 * t) & 0x03030303u) << 4);
      high = recentred<6>(high | (upper[1] >> (2 * t) & 0x03030303u) << 4);
    }
    if constexpr (F == Format::Q4_0) low = recentred<4>(low), high = recentred<4>(high);
  }
}

template <Format F>
constexpr bool kAffine = F == Format::Q4_K || F == Format::Q5_K;  // integer scales and mins per 32
template <Format F>
constexpr bool kMins16 = F == Format::Q2_K;  // integer scales and mins per 16
template <Format F>
constexpr bool kScales16 = kMins16<F> || F == Format::Q3_K || F == Format::Q6_K;  // integer scales per 16
template <Format F>
constexpr bool kTwoBits = F == Format::Q2_K || F == Format::Q3_K;  // low bits, two dwords of a sub-block of 32
template <Format F>
constexpr bool kScales32 = kAffine<F> || F == Format::IQ4_XS;  // integer scales per 32
template <Format F>
constexpr bool kFloatScales = F == Format::Q8_0 || F == Format::Q4_0 || F == Format::IQ4_NL;  // float16 scales per 32
template <Format F>
constexpr int kCodeChunks = kWholeBytes<F> ? 2 : 1;  // per sub-block of 32
template <Format F>
constexpr int kScaleChunk = format_layout(F).chunks - 1;  // the chunk with the scales

__device__ __forceinline__ uint32_t word_of(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}
__device__ __forceinline__ int signed_byte(uint32_t word, int i) { return static_cast<int8_t>(word >> (8 * i)); }

// Integer scale i of the four in a word, of types that have them per 16, and min i of Q2_K's.
template <Format F>
__device__ __forceinline__ int scale16(uint32_t word, int i) {
  return kMins16<F> ? static_cast<int>(word >> (8 * i) & 15) : signed_byte(word, i);
}
__device__ __forceinline__ uint32_t min16(uint32_t word, int i) { return word >> (8 * i + 4) & 15; }

// A block's float scale, from its last four bytes (IQ4_XS: those behind the integer scales).
template <Format F>
__device__ __forceinline__ float block_scale(uint32_t tail) {
  return F == Format::I8 ? __uint_as_float(tail) : from_half(static_cast<uint16_t>(tail));
}

// One lane's block.
template <Format F>
struct LaneBlock {
  uint4 chunk[format_layout(F).chunks];
  uint32_t tail;

  __device__ __forceinline__ void load(const uint8_t* unit, int lane) {
    const uint4* chunks = reinterpret_cast<const uint4*>(unit);
#pragma unroll
    for (int c = 0; c < format_layout(F).chunks; c++) chunk[c] = chunks[c * kLanes + lane];
    tail = 0;
    if constexpr (format_layout(F).has_tail)
      tail = reinterpret_cast<const uint32_t*>(chunks + format_layout(F).chunks * kLanes)[lane];
    if constexpr (F == Format::IQ4_XS) tail = chunk[kScaleChunk<F>].z;
  }

  // The product with one block of activations, before the activations' scale. codes: 16-byte aligned, in shared memory.
  __device__ __forceinline__ float times(const int8_t* codes, const int8_t* sums) const {
    const uint4* x = reinterpret_cast<const uint4*>(codes);
    const uint4& scales = chunk[kScaleChunk<F>];
    int total = 0, mins = 0;
    float value = 0;
#pragma unroll
    for (int s = 0; s < 8; s++) {
      const uint4 x_low = x[2 * s], x_high = x[2 * s + 1];
      uint32_t upper[2] = {0, 0};
      if constexpr (F == Format::Q3_K) upper[0] = word_of(chunk[4 + s / 4], s % 4);
      if constexpr (F == Format::Q5_K) upper[0] = word_of(chunk[8 + s / 4], s % 4);
      if constexpr (F == Format::Q6_K)
        upper[0] = word_of(chunk[8 + s / 2], s % 2 * 2), upper[1] = word_of(chunk[8 + s / 2], s % 2 * 2 + 1);
      int dot_low = 0, dot_high = 0, sum_low = 0, sum_high = 0;
#pragma unroll
      for (int t = 0; t < 4; t++) {
        uint32_t word[2];
        if constexpr (kTwoBits<F>) {
          word[0] = word_of(chunk[s / 2], s % 2 * 2), word[1] = word_of(chunk[s / 2], s % 2 * 2 + 1);
        } else {
          word[0] = word_of(chunk[kCodeChunks<F> * s], t);
          word[1] = word_of(chunk[kCodeChunks<F> * s + kCodeChunks<F> - 1], t);
        }
        uint32_t low, high;
        unpack<F>(word, upper, t, low, high);
        dot_low = __dp4a(static_cast<int>(low), static_cast<int>(word_of(x_low, t)), dot_low);
        dot_high = __dp4a(static_cast<int>(high), static_cast<int>(word_of(x_high, t)), dot_high);
        if constexpr (kMins16<F>) {
          sum_low = __dp4a(0x01010101, static_cast<int>(word_of(x_low, t)), sum_low);
          sum_high = __dp4a(0x01010101, static_cast<int>(word_of(x_high, t)), sum_high);
        }
      }
      if constexpr (kScales32<F>) {
        total += (dot_low + dot_high) * signed_byte(word_of(scales, s / 4), s % 4);
      } else if constexpr (kScales16<F>) {
        const uint32_t two = word_of(scales, s / 2);
        total += dot_low * scale16<F>(two, s % 2 * 2) + dot_high * scale16<F>(two, s % 2 * 2 + 1);
        if constexpr (kMins16<F>)
          mins += sum_low * static_cast<int>(min16(two, s % 2 * 2)) +
                  sum_high * static_cast<int>(min16(two, s % 2 * 2 + 1));
      } else if constexpr (F == Format::I8) {
        total += dot_low + dot_high;
      } else {
        const float d = from_half(static_cast<uint16_t>(word_of(scales, s / 2) >> (s % 2 * 16)));
        value = __fadd_rn(value, __fmul_rn(__int2float_rn(dot_low + dot_high), d));
      }
    }
    if constexpr (kFloatScales<F>) return value;
    value = __fmul_rn(__int2float_rn(total), block_scale<F>(tail));
    if constexpr (kAffine<F>) {
      const uint4 sum = *reinterpret_cast<const uint4*>(sums);
      int high = __dp4a(static_cast<int>(scales.z), static_cast<int>(sum.x), 0);
      high = __dp4a(static_cast<int>(scales.w), static_cast<int>(sum.y), high);
      mins = __dp4a(static_cast<int>(scales.z), static_cast<int>(sum.z), 64 * high);
      mins = __dp4a(static_cast<int>(scales.w), static_cast<int>(sum.w), mins);
    }
    if constexpr (kAffine<F> || kMins16<F>)
      value = __fsub_rn(value, __fmul_rn(__int2float_rn(mins), from_half(static_cast<uint16_t>(tail >> 16))));
    return value;
  }
};

}  // namespace ke::cuda
