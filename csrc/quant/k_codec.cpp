// The types with 4-, 6- or 8-bit scales of sub-blocks and float16 scales per 256 values: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K.
// Layouts: blocks.h.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "quant/block_codec.h"
#include "quant/blocks.h"
#include "quant/codec.h"
#include "quant/k_layout.h"
#include "quant/scale_search.h"
#include "quant/signed_block.h"
#include "quant/stored_scales.h"

namespace ke {

namespace {

constexpr int block = 256;

void decode_affine(uint16_t d_bits, uint16_t dmin_bits, const uint8_t* packed, const uint8_t* q, float* out) {
  const float d = f16_to_f32(d_bits), dmin = f16_to_f32(dmin_bits);
  uint8_t scale[8], min[8];
  unpack_scales(packed, scale, min);
  for (int s = 0; s < 8; ++s) {
    const float step = d * scale[s], low = dmin * min[s];
    for (int l = 0; l < 32; ++l) out[32 * s + l] = step * q[32 * s + l] - low;
  }
}

}  // namespace

void decode_q2_k(const void* blocks, float* out, int64_t n) {
  const BlockQ2_K* b = static_cast<const BlockQ2_K*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    const float d = f16_to_f32(b[k].d), dmin = f16_to_f32(b[k].dmin);
    uint8_t q[block];
    unpack_q2(b[k], q);
    for (int i = 0; i < block; ++i)
      out[k * block + i] = (d * (b[k].scales[i / 16] & 15)) * q[i] - dmin * (b[k].scales[i / 16] >> 4);
  }
}

void decode_q3_k(const void* blocks, float* out, int64_t n) {
  const BlockQ3_K* b = static_cast<const BlockQ3_K*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    const float d = f16_to_f32(b[k].d);
    int8_t scale[16], q[block];
    unpack_q3_scales(b[k].scales, scale);
    unpack_q3(b[k], q);
    for (int i = 0; i < block; ++i) out[k * block + i] = (d * scale[i / 16]) * q[i];
  }
}

void decode_q4_k(const void* blocks, float* out, int64_t n) {
  const BlockQ4_K* b = static_cast<const BlockQ4_K*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    uint8_t q[block];
    unpack_nibbles(b[k].qs, q);
    decode_affine(b[k].d, b[k].dmin, b[k].scales, q, out + k * block);
  }
}

void decode_q5_k(const void* blocks, float* out, int64_t n) {
  const BlockQ5_K* b = static_cast<const BlockQ5_K*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    uint8_t q[block];
    unpack_nibbles(b[k].qs, q);
    for (int s = 0; s < 8; ++s)
      for (int l = 0; l < 32; ++l) q[32 * s + l] = static_cast<uint8_t>(q[32 * s + l] | ((b[k].qh[l] >> s) & 1) << 4);
    decode_affine(b[k].d, b[k].dmin, b[k].scales, q, out + k * block);
  }
}

void decode_q6_k(const void* blocks, float* out, int64_t n) {
  const BlockQ6_K* b = static_cast<const BlockQ6_K*>(blocks);
  for (int64_t k = 0; k < n / block; ++k) {
    const float d = f16_to_f32(b[k].d);
    for (int h = 0; h < 2; ++h)
      for (int r = 0; r < 4; ++r)
        for (int l = 0; l < 32; ++l) {
          const int low = b[k].ql[64 * h + 32 * (r % 2) + l] >> (r < 2 ? 0 : 4) & 15;
          const int high = b[k].qh[32 * h + l] >> 2 * r & 3;
          const int i = 128 * h + 32 * r + l;
          out[k * block + i] = (d * b[k].scales[i / 16]) * static_cast<float>((low | high << 4) - 32);
        }
  }
}

namespace {

constexpr int rounds = 2;  // of refining the scales of 256 values together

// Both searches below end alike. Given the best scale of every sub-block on its own: take the block's d so that all are
// in reach, choose every integer scale among its neighbours by the error that it really gives, then find the best d for
// the codes by least squares, and choose again; keep what was best.

// Q2_K, Q4_K and Q5_K: x ~ d scale[s] q - dmin min[s]. Values: of a sub-block; Top: the largest integer scale and min.
template <int Values, int Top>
struct AffineBlock {
  static constexpr int groups = 64 / Values;  // of four sub-blocks
  static constexpr float top = Top;
  Columns<Values> columns[groups];
  F4 steps;
  uint16_t d_bits = 0, dmin_bits = 0;
  F4 scale[groups], min[groups];  // integers 0..Top
  float error = std::numeric_limits<float>::infinity();

  AffineBlock(const float* in, const float* importance, int step_count) : steps(splat(static_cast<float>(step_count))) {
    F4 top_scale = splat(0), top_min = splat(0);
    ScaleFit fits[groups];
    for (int g = 0; g < groups; ++g) {
      columns[g].load(in + 4 * Values * g, importance ? importance + 4 * Values * g : nullptr);
      fits[g] = AffineSearch<Values>(columns[g], step_count, true).best();
      top_scale = lanes_max(top_scale, fits[g].scale);
      top_min = lanes_max(top_min, -fits[g].offset);
    }
    float d = 0, dmin = 0;
    for (int j = 0; j < 4; ++j) {
      d = std::max(d, top_scale[j] / top);
      dmin = std::max(dmin, top_min[j] / top);
    }
    d = f16_beyond(d);
    dmin = f16_beyond(dmin);
    for (int g = 0; g < groups; ++g) {
      scale[g] = nearest_code(fits[g].scale * reciprocal(splat(d)), splat(0), splat(top));
      min[g] = nearest_code(-fits[g].offset * reciprocal(splat(dmin)), splat(0), splat(top));
    }
    for (int round = 0; try_scales(d, dmin) && round < rounds; ++round) refit(&d, &dmin);
  }

  // Chooses the integer scales for d and dmin; false (and nothing changes) when that is no improvement.
  bool try_scales(float d, float dmin) {
    const uint16_t new_d = f32_to_f16(d), new_dmin = f32_to_f16(dmin);
    const F4 step = splat(f16_to_f32(new_d)), low = splat(-f16_to_f32(new_dmin));
    F4 new_scale[groups], new_min[groups];
    float new_error = 0;
    for (int g = 0; g < groups; ++g) {
      F4 best = splat(std::numeric_limits<float>::infinity());
      new_scale[g] = scale[g];
      new_min[g] = min[g];
      for (int a = -1; a <= 1; ++a)
        for (int b = -1; b <= 1; ++b) {
          const F4 s = lanes_min(lanes_max(scale[g] + splat(static_cast<float>(a)), splat(0)), splat(top));
          const F4 m = lanes_min(lanes_max(min[g] + splat(static_cast<float>(b)), splat(0)), splat(top));
          const F4 e = measure(columns[g], step * s, low * m, splat(0), steps).error;
          const I4 better = e < best;
          best = pick(better, e, best);
          new_scale[g] = pick(better, s, new_scale[g]);
          new_min[g] = pick(better, m, new_min[g]);
        }
      new_error += lanes_sum(best);
    }
    if (!(new_error < error)) return false;
    error = new_error;
    d_bits = new_d;
    dmin_bits = new_dmin;
    for (int g = 0; g < groups; ++g) {
      scale[g] = new_scale[g];
      min[g] = new_min[g];
    }
    return true;
  }

  // Least squares of x ~ d (scale q) + dmin (-min) over all 256 values.
  void refit(float* d, float* dmin) const {
    F4 uu = splat(0), uv = splat(0), vv = splat(0), ux = splat(0), vx = splat(0);
    for (int g = 0; g < groups; ++g) {
      const F4 step = splat(f16_to_f32(d_bits)) * scale[g], low = splat(-f16_to_f32(dmin_bits)) * min[g];
      const F4 inverse = reciprocal(step);
      for (int i = 0; i < Values; ++i) {
        const F4 x = columns[g].x[i], w = columns[g].w[i];
        const F4 u = scale[g] * nearest_code((x - low) * inverse, splat(0), steps), v = -min[g];
        uu += w * u * u;
        uv += w * u * v;
        vv += w * v * v;
        ux += w * u * x;
        vx += w * v * x;
      }
    }
    const float a = lanes_sum(uu), b = lanes_sum(uv), c = lanes_sum(vv), p = lanes_sum(ux), q = lanes_sum(vx);
    const float determinant = a * c - b * b;
    if (!(determinant > 1e-5f * a * c)) return;  // one of the two explains nothing: keep both
    *d = std::max(0.f, (p * c - q * b) / determinant);
    *dmin = std::max(0.f, (q * a - p * b) / determinant);
  }

  // 256 codes, the scales and mins of 4 * groups sub-blocks.
  void codes(uint8_t* q, uint8_t* s, uint8_t* m) const {
    for (int g = 0; g < groups; ++g) {
      int8_t signed_codes[4 * Values];
      columns[g].write_codes(splat(f16_to_f32(d_bits)) * scale[g], splat(-f16_to_f32(dmin_bits)) * min[g], splat(0),
                             steps, signed_codes);
      std::memcpy(q + 4 * Values * g, signed_codes, sizeof signed_codes);
      for (int j = 0; j < 4; ++j) {
        s[4 * g + j] = static_cast<uint8_t>(scale[g][j]);
        m[4 * g + j] = static_cast<uint8_t>(min[g][j]);
      }
    }
  }
};

// Codes -half .. half - 1, of Q6_K and Q3_K.
struct EvenCodes {
  static constexpr int values = 16;  // of a sub-block
  const int half, candidates;        // candidates: of search_symmetric
  const F4 low = splat(static_cast<float>(-half)), high = splat(static_cast<float>(half - 1));

  F4 search(const Columns<values>& c) const { return search_symmetric(c, -half, half - 1, candidates).scale; }
  F4 error(const Columns<values>& c, F4 scale) const { return measure(c, scale, splat(0), low, high).error; }
  F4 nearest(F4 x) const { return nearest_code(x, low, high); }
};

struct SymmetricBlock : SignedBlock<EvenCodes> {
  using SignedBlock::SignedBlock;

  // 256 codes, 16 integer scales.
  void codes(int8_t* q, int8_t* scales) const {
    for (int g = 0; g < groups; ++g) {
      columns[g].write_codes(splat(f16_to_f32(d_bits)) * scale[g], splat(0), codes_of.low, codes_of.high, q + 64 * g);
      for (int j = 0; j < 4; ++j) scales[4 * g + j] = static_cast<int8_t>(scale[g][j]);
    }
  }
};

}  // namespace

void encode_q2_k(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance) {
  for_blocks(in, n, row_length, importance, [&](int64_t k, const float* values, const float* weights) {
    BlockQ2_K& b = static_cast<BlockQ2_K*>(blocks)[k];
    const AffineBlock<16, 15> found(values, weights, 3);
    uint8_t q[block], scale[16], min[16];
    found.codes(q, scale, min);
    for (int s = 0; s < 16; ++s) b.scales[s] = static_cast<uint8_t>(scale[s] | min[s] << 4);
    b.d = found.d_bits;
    b.dmin = found.dmin_bits;
    pack_q2(q, b);
  });
}

void encode_q3_k(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance) {
  for_blocks(in, n, row_length, importance, [&](int64_t k, const float* values, const float* weights) {
    BlockQ3_K& b = static_cast<BlockQ3_K*>(blocks)[k];
    const SymmetricBlock found(values, weights, 32, EvenCodes{4, 21});
    int8_t q[block], scales[16];
    found.codes(q, scales);
    b.d = found.d_bits;
    pack_q3_scales(scales, b.scales);
    pack_q3(q, b);
  });
}

// Q4_K, Q5_K. last: the largest code; pack: puts 256 codes into the block.
template <class Block, class Pack>
void encode_affine(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance, int last,
                   Pack pack) {
  for_blocks(in, n, row_length, importance, [&](int64_t k, const float* values, const float* weights) {
    Block& b = static_cast<Block*>(blocks)[k];
    const AffineBlock<32, 63> found(values, weights, last);
    uint8_t q[block], scale[8], min[8];
    found.codes(q, scale, min);
    pack_scales(scale, min, b.scales);
    b.d = found.d_bits;
    b.dmin = found.dmin_bits;
    pack(q, b);
  });
}

void encode_q4_k(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance) {
  encode_affine<BlockQ4_K>(in, blocks, n, row_length, importance, 15,
                           [](const uint8_t* q, BlockQ4_K& b) { pack_nibbles(q, b.qs); });
}

void encode_q5_k(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance) {
  encode_affine<BlockQ5_K>(in, blocks, n, row_length, importance, 31, pack_q5);
}

void encode_q6_k(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance) {
  for_blocks(in, n, row_length, importance, [&](int64_t k, const float* values, const float* weights) {
    BlockQ6_K& b = static_cast<BlockQ6_K*>(blocks)[k];
    const SymmetricBlock found(values, weights, 128, EvenCodes{32, 13});
    int8_t q[block];
    found.codes(q, b.scales);
    b.d = found.d_bits;
    pack_q6(q, b);
  });
}

}  // namespace ke
