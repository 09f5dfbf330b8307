// The types whose 4-bit codes stand for the values of a table: IQ4_NL, IQ4_XS. Layouts: blocks.h.
#include "quant/block_codec.h"
#include "quant/blocks.h"
#include "quant/signed_block.h"
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

// The codes of lane j, packed.
void pack_lane(const Columns<32>& c, int lane, float scale, uint8_t* qs) {
  const float inverse = scale == 0 ? 0 : 1 / scale;
  uint8_t q[32];
  for (int i = 0; i < 32; ++i) q[i] = table_rounding.code(c.x[i][lane] * inverse);
  pack_table_codes(q, qs);
}

struct TableCodes {
  static constexpr int values = 32;  // of a sub-block
  F4 search(const Columns<values>& c) const { return search_table(c, kCandidates); }
  F4 error(const Columns<values>& c, F4 scale) const { return table_error(c, scale); }
  F4 nearest(F4 x) const { return table_rounding(x); }
};

struct TableBlock : SignedBlock<TableCodes> {
  using SignedBlock::SignedBlock;

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
    TableBlock(values, weights, 32, TableCodes{}).store(static_cast<BlockIQ4_XS*>(blocks)[k]);
  });
}

}  // namespace ke
