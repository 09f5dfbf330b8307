// The types whose 4-bit codes stand for the values of a table: IQ4_NL, IQ4_XS. Layouts: blocks.h.
#include <algorithm>
#include <cmath>
#include <limits>

#include "quant/block_codec.h"
#include "quant/blocks.h"
#include "quant/stored_scales.h"
#include "quant/table_layout.h"
#include "quant/table_search.h"

namespace ke {

void decode_iq4_nl(const void* blocks, float* out, int64_t n) {
  const BlockIQ4_NL* b = static_cast<const BlockIQ4_NL*>(blocks);
  for (int64_t k = 0; k < n / 32; ++k) {
    const float d = f16_to_f32(b[k].d);
    uint8_t q[32];
    unpack_table_codes(b[k].qs, q);
    for (int i = 0; i < 32; ++i) out[32 * k + i] = d * kTable[q[i]];
  }
}

void decode_iq4_xs(const void* blocks, float* out, int64_t n) {
  const BlockIQ4_XS* b = static_cast<const BlockIQ4_XS*>(blocks);
  for (int64_t k = 0; k < n / 256; ++k) {
    const float d = f16_to_f32(b[k].d);
    int8_t scale[8];
    unpack_iq4_scales(b[k], scale);
    for (int s = 0; s < 8; ++s) {
      const float step = d * scale[s];
      uint8_t q[32];
      unpack_table_codes(b[k].qs + 16 * s, q);
      for (int i = 0; i < 32; ++i) out[256 * k + 32 * s + i] = step * kTable[q[i]];
    }
  }
}

namespace {

constexpr int kCandidates = 31;  // of search_table
constexpr int kRounds = 2;       // of refining the scales of 256 values together

// The codes of lane j, packed.
void pack_lane(const Columns<32>& c, int lane, float scale, uint8_t* qs) {
  const float inverse = scale == 0 ? 0 : 1 / scale;
  uint8_t q[32];
  for (int i = 0; i < 32; ++i) q[i] = table_rounding.code(c.x[i][lane] * inverse);
  pack_table_codes(q, qs);
}

// x ~ d scale[s] table[q]: given the best scale of every sub-block on its own, takes the block's d so that all are in
// reach, chooses every integer scale among its neighbours by the error that it really gives, then finds the best d for
// the codes by least squares, and chooses again; keeps what was best.
struct TableBlock {
  static constexpr int groups = 2;  // of four sub-blocks
  Columns<32> columns[groups];
  uint16_t d_bits = 0;
  F4 scale[groups];  // integers -32..31
  float error = std::numeric_limits<float>::infinity();

  TableBlock(const float* in, const float* importance) {
    F4 exact[groups];
    float top = 0;  // the scale of largest magnitude becomes -32
    for (int g = 0; g < groups; ++g) {
      columns[g].load(in + 128 * g, importance ? importance + 128 * g : nullptr);
      exact[g] = search_table(columns[g], kCandidates);
      for (int j = 0; j < 4; ++j)
        if (std::fabs(exact[g][j]) > std::fabs(top)) top = exact[g][j];
    }
    float d = f16_beyond(top / -32);
    const F4 inverse = reciprocal(splat(d));
    for (int g = 0; g < groups; ++g) scale[g] = nearest_code(exact[g] * inverse, splat(-32), splat(31));
    for (int round = 0; try_scales(d) && round < kRounds; ++round) d = refit(d);
  }

  // Chooses the integer scales for d; false (and nothing changes) when that is no improvement.
  bool try_scales(float d) {
    const uint16_t new_d = f32_to_f16(d);
    const F4 step = splat(f16_to_f32(new_d));
    F4 new_scale[groups];
    float new_error = 0;
    for (int g = 0; g < groups; ++g) {
      F4 best = splat(std::numeric_limits<float>::infinity());
      new_scale[g] = scale[g];
      for (int a = -2; a <= 2; ++a) {
        const F4 s = lanes_min(lanes_max(scale[g] + splat(static_cast<float>(a)), splat(-32)), splat(31));
        const F4 e = table_error(columns[g], step * s);
        const I4 better = e < best;
        best = pick(better, e, best);
        new_scale[g] = pick(better, s, new_scale[g]);
      }
      new_error += lanes_sum(best);
    }
    if (!(new_error < error)) return false;
    error = new_error;
    d_bits = new_d;
    std::copy_n(new_scale, groups, scale);
    return true;
  }

  // Least squares of x ~ d (scale table[q]) over all 256 values.
  float refit(float d) const {
    F4 ux = splat(0), uu = splat(0);
    for (int g = 0; g < groups; ++g) {
      const F4 inverse = reciprocal(splat(f16_to_f32(d_bits)) * scale[g]);
      for (int i = 0; i < 32; ++i) {
        const F4 u = scale[g] * table_rounding(columns[g].x[i] * inverse);
        ux += columns[g].w[i] * u * columns[g].x[i];
        uu += columns[g].w[i] * u * u;
      }
    }
    const float p = lanes_sum(ux), a = lanes_sum(uu);
    return a > 0 ? p / a : d;
  }

  void store(BlockIQ4_XS& b) const {
    int8_t s[8];
    for (int i = 0; i < 8; ++i) {
      const float integer = scale[i / 4][i % 4];
      s[i] = static_cast<int8_t>(integer);
      pack_lane(columns[i / 4], i % 4, f16_to_f32(d_bits) * integer, b.qs + 16 * i);
    }
    b.d = d_bits;
    pack_iq4_scales(s, b);
  }
};

}  // namespace

void encode_iq4_nl(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance) {
  BlockIQ4_NL* out = static_cast<BlockIQ4_NL*>(blocks);
  for_groups(n, row_length, importance, [&](int64_t first, int used, const float* weights) {
    Columns<32> c;
    c.load(in + first * 32, weights, used);
    const StoredScales d = best_stored(search_table(c, kCandidates), [&](F4 scale) { return table_error(c, scale); });
    for (int j = 0; j < used; ++j) {
      out[first + j].d = d.bits[j];
      pack_lane(c, j, d.value[j], out[first + j].qs);
    }
  });
}

void encode_iq4_xs(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance) {
  for_blocks(in, n, row_length, importance, [&](int64_t k, const float* values, const float* weights) {
    TableBlock(values, weights).store(static_cast<BlockIQ4_XS*>(blocks)[k]);
  });
}

}  // namespace ke
