// Weights of one block (256 k) as the tile registers take them: planes of 64 lines, so that a product is a plain sum
// over all 256 k. Integer scales of sub-blocks are multiplied into the codes, digit by digit, because a scaled code
// does not fit into a byte. Everything stays an integer, so that the sums are those of every other instruction set
// (quant_dot4.inl).
//   Q4_K, Q5_K  scales 0 .. 63 = 8 digit_1 + digit_0, codes times a digit at most 31 * 7 = 217; planes: 8, 1; unsigned
//   Q2_K        scales 0 .. 15, codes times a scale at most 45; one plane; unsigned
//   Q6_K        scales -128 .. 127, values -32 .. 31: products in -4096 .. 4096; planes: 256, 1; signed
//   Q3_K        scales -32 .. 31, values eightfold, -32 .. 24; planes: 256, 1; signed
//   IQ4_XS      scales -32 .. 31, values -127 .. 113: products in -3616 .. 4064; planes: 256, 1; signed
//   I8          no scales: the panel's own lines; unsigned, 128 too high
#pragma once
#include "cpu/amx/tiles.inl"
#include "cpu/quant_dot4.inl"

namespace ke::cpu::KE_ISA {
namespace {

constexpr int kPlane = 64 * kLine;  // bytes

// Both 16-bit halves of every lane.
KE_INLINE __m512i halves_of(__m512i lanes) {
  return _mm512_or_si512(_mm512_slli_epi32(lanes, 16), _mm512_and_si512(lanes, _mm512_set1_epi32(0xffff)));
}

// Calls f(line, codes, scale) for the lines of panel p; a scale is that of the line's sub-block.
template <class Format, int P, class F>
KE_INLINE void each_line(const FromPanels<Format, P, false>& from, int p, F f) {
  constexpr int lines = 64 / Format::sub_blocks, each_time = Format::sub_blocks / Format::repeats;
  each<each_time>([&]<int i>() KE_LAMBDA {
    for (int r = 0; r < Format::repeats; ++r) {
      const SubBlock<i> at{r * each_time};
      const __m512i scale = from.scale(p, at).v;
      each<lines>([&]<int g>()
                      KE_LAMBDA { f(at * lines + g, from.codes(p, at, Const<lines>(), Const<g>()).v, scale); });
    }
  });
}

// Q4_K, Q5_K.
template <class Format>
struct AffinePlanes {
  using Source = Format;
  static constexpr int planes = 2, row_tiles = 2, panels = 1;  // of a step: what its sums leave room for
  static constexpr int least_rows = 24;  // for fewer, unpacking takes longer than it saves; measured
  static constexpr bool is_signed = false, unpacks = true;

  static inline void unpack(const FromPanels<Format, kPanels, false>& from, int p, uint8_t* to) {
    each_line(from, p, [&](int line, __m512i codes, __m512i scale) KE_LAMBDA {
      const __m512i digits = _mm512_set1_epi32(0x00070007);
      uint8_t* at = to + line * kLine;
      const __m512i high = _mm512_and_si512(halves_of(_mm512_srli_epi32(scale, 3)), digits);
      const __m512i low = _mm512_and_si512(halves_of(scale), digits);
      // No product exceeds a byte, so that neighbours in 16 bits do not meet.
      _mm512_store_si512(at, _mm512_mullo_epi16(codes, high));
      _mm512_store_si512(at + kPlane, _mm512_mullo_epi16(codes, low));
    });
  }
  static KE_INLINE const uint8_t* codes(const FromPanels<Format, kPanels, false>&, const uint8_t* unpacked, int) {
    return unpacked;
  }

  // What the combination of a panel's sums needs.
  struct Panels {
    u8x64 m0, m1;
    f32x16 d, dmin;
    Panels(const FromPanels<Format, kPanels, false>& from, int p)
        : m0(from.mins(p, 0)), m1(from.mins(p, 1)), d(from.d(p, 0)), dmin(from.m(p, 0)) {}
    // sums: of one row, planes kTileRows lines apart.
    template <int>
    KE_INLINE f32x16 value(const int32_t* sums, const TileX& x, int row) const {
      const i32x16 total = add(shift_left<3>(load(sums)), load(sums + kTileRows * 16));
      const int8_t* of_x = x.mins + row * 16;
      const i32x16 high = dot4(dot4(set1(0), m0, of_x), m1, of_x + 8);
      const i32x16 mins = dot4(dot4(shift_left<6>(high), m0, of_x + 4), m1, of_x + 12);
      return sub(mul(to_float(total), d), mul(to_float(mins), dmin));
    }
  };
};

// Q2_K.
struct Q2Planes {
  using Source = Q2_K;
  static constexpr int planes = 1, row_tiles = 2, panels = 2, least_rows = 24;
  static constexpr bool is_signed = false, unpacks = true;

  static inline void unpack(const FromPanels<Q2_K, kPanels, false>& from, int p, uint8_t* to) {
    each_line(from, p, [&](int line, __m512i codes, __m512i scale) KE_LAMBDA {
      _mm512_store_si512(to + line * kLine, _mm512_mullo_epi16(codes, halves_of(scale)));
    });
  }
  static KE_INLINE const uint8_t* codes(const FromPanels<Q2_K, kPanels, false>&, const uint8_t* unpacked, int) {
    return unpacked;
  }

  struct Panels {
    const FromPanels<Q2_K, kPanels, false> from;
    const int first;
    Panels(const FromPanels<Q2_K, kPanels, false>& from, int p) : from(from), first(p) {}
    template <int P>
    KE_INLINE f32x16 value(const int32_t* sums, const TileX& x, int row) const {
      const int p = first + P;
      const AffineSubBlocks16::Digits digits(x.sum16 + row * 16);
      const i32x16 mins = digits.times([&](int j) KE_LAMBDA { return from.mins(p, j); });
      return sub(mul(to_float(load(sums)), from.d(p, 0)), mul(to_float(mins), from.m(p, 0)));
    }
  };
};

// The bytes of a lane times its scale, as the low bytes of 16 bits (signed) and what is left in units of 256.
KE_INLINE void times_scale(__m512i codes, __m512i scale, __m512i& high, __m512i& low) {
  const __m512i even = _mm512_set1_epi16(0xff), half = _mm512_set1_epi16(128);
  const __m512i a = _mm512_mullo_epi16(_mm512_srai_epi16(_mm512_slli_epi16(codes, 8), 8), scale);
  const __m512i b = _mm512_mullo_epi16(_mm512_srai_epi16(codes, 8), scale);
  low = _mm512_ternarylogic_epi32(even, a, _mm512_slli_epi16(b, 8), 0xca);  // even ? a : b
  high =
      _mm512_ternarylogic_epi32(even, _mm512_srai_epi16(_mm512_add_epi16(a, half), 8), _mm512_add_epi16(b, half), 0xca);
}

// Q3_K, Q6_K, IQ4_XS: signed values are codes - Zero.
template <class Format, int Zero>
struct SignedPlanes {
  using Source = Format;
  static constexpr int planes = 2, row_tiles = 2, panels = 1, least_rows = 24;
  static constexpr bool is_signed = true, unpacks = true;

  static inline void unpack(const FromPanels<Format, kPanels, false>& from, int p, uint8_t* to) {
    each_line(from, p, [&](int line, __m512i codes, __m512i scale) KE_LAMBDA {
      __m512i high, low;
      times_scale(_mm512_sub_epi8(codes, _mm512_set1_epi8(static_cast<char>(Zero))), halves_of(scale), high, low);
      uint8_t* at = to + line * kLine;
      _mm512_store_si512(at, high);
      _mm512_store_si512(at + kPlane, low);
    });
  }
  static KE_INLINE const uint8_t* codes(const FromPanels<Format, kPanels, false>&, const uint8_t* unpacked, int) {
    return unpacked;
  }

  struct Panels {
    f32x16 d;
    Panels(const FromPanels<Format, kPanels, false>& from, int p) : d(from.d(p, 0)) {}
    template <int>
    KE_INLINE f32x16 value(const int32_t* sums, const TileX&, int) const {
      return mul(to_float(add(shift_left<8>(load(sums)), load(sums + kTileRows * 16))), d);
    }
  };
};

struct I8Planes {
  using Source = EightBits256;
  static constexpr int planes = 1, row_tiles = 2, panels = 2, least_rows = 16;
  static constexpr bool is_signed = false, unpacks = false;

  static KE_INLINE const uint8_t* codes(const FromPanels<EightBits256, kPanels, false>& from, const uint8_t*, int p) {
    return from.lines + p * from.layout.lines;
  }

  struct Panels {
    f32x16 d0, d1;
    Panels(const FromPanels<EightBits256, kPanels, false>& from, int p) : d0(from.d(p, 0)), d1(from.d(p + 1, 0)) {}
    template <int P>
    KE_INLINE f32x16 value(const int32_t* sums, const TileX& x, int row) const {
      return mul(to_float(add(load(sums), set1(x.total[row]))), P ? d1 : d0);
    }
  };
};

}  // namespace
}  // namespace ke::cpu::KE_ISA
