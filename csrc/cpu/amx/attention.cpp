// Attention of a quantized file's encoder in tile registers. Keys and queries are codes of 8 bits, as elsewhere. Values
// and the weights of a softmax are codes of 15 and 14 bits in two digits: 128 * high + low. Products of two low digits
// are left out: a weight below 1/127 of the largest meets values of 8 bits. A row's result depends on its own query,
// keys and values alone: bits are the same in any batch.
#include "cpu/amx/tiles.inl"
#include "cpu/attention.inl"

namespace ke::cpu::KE_ISA {
namespace {

constexpr int kTileSums = kTileRows * 16;
constexpr int kAtOnce = 4;  // panels of keys whose sums are in registers
constexpr int kMostCode = 127 * 128;

// Where the parts of the scratch are.
struct Parts {
  int8_t* queries;  // [kTileRows][head_dim]
  int32_t* sums;    // 2 kAtOnce tiles
  float* scores;    // [kTileRows][stride]
  int64_t stride;
  int8_t* high;  // codes of weights, [kTileRows][padded]
  int8_t* low;
  int64_t padded;

  explicit Parts(const CodedAttentionTask& task)
      : queries(reinterpret_cast<int8_t*>(task.scratch)),
        sums(reinterpret_cast<int32_t*>(task.scratch + kTileRows * task.queries.head_dim)),
        scores(reinterpret_cast<float*>(sums + 2 * kAtOnce * kTileSums)),
        stride(padded_positions(task.positions) + 16),
        high(reinterpret_cast<int8_t*>(scores + kTileRows * stride)),
        low(high + kTileRows * padded_positions(task.positions)),
        padded(padded_positions(task.positions)) {}
};

// The products of 16 rows of queries with `count` panels of keys, d * 16 bytes each.
inline void multiply_keys(const int8_t* queries, const uint8_t* keys, int64_t d, int count, int32_t* sums) {
  each<kAtOnce>([&]<int p>() KE_LAMBDA { tile_zero<p>(); });
  for (int64_t k = 0; k < d; k += kTileDepth, keys += kTileDepth * 16) {
    tile_load<kAtOnce>(queries + k, d);
    each<kAtOnce>([&]<int p>() KE_LAMBDA {
      if (p >= count) return;
      tile_load<kAtOnce + 1 + p % 2>(keys + p * d * 16, 64);
      tile_dot<false, p, kAtOnce, kAtOnce + 1 + p % 2>();
    });
  }
  each<kAtOnce>([&]<int p>() KE_LAMBDA { tile_store<p>(sums + p * kTileSums, 64); });
}

// The products of 16 rows of weights with two panels of values: sums of each panel over both high digits, and over one
// high and one low.
inline void multiply_values(const int8_t* high_weights, const int8_t* low_weights, const int8_t* high_values,
                            const int8_t* low_values, int64_t positions, int32_t* sums) {
  constexpr int kHigh = 4, kLow = 5, kValues = 6;  // registers
  each<4>([&]<int i>() KE_LAMBDA { tile_zero<i>(); });
  for (int64_t k = 0; k < positions; k += kTileDepth) {
    tile_load<kHigh>(high_weights + k, positions);
    tile_load<kLow>(low_weights + k, positions);
    each<2>([&]<int p>() KE_LAMBDA {
      tile_load<kValues>(high_values + (p * positions + k) * 16, 64);
      tile_load<kValues + 1>(low_values + (p * positions + k) * 16, 64);
      tile_dot<true, 2 * p, kHigh, kValues>();
      tile_dot<true, 2 * p + 1, kLow, kValues>();
      tile_dot<true, 2 * p + 1, kHigh, kValues + 1>();
    });
  }
  each<4>([&]<int i>() KE_LAMBDA { tile_store<i>(sums + i * kTileSums, 64); });
}

// Scores in units of a logarithm to the base 2; what lies behind the last position is -infinity. exact: of each row, 0,
// or no number where a query or a key is none.
void scores_of(const CodedAttentionTask& task, const Parts& parts, float* exact) {
  const int64_t d = task.queries.head_dim, panels = (task.positions + 15) / 16;
  float scale[kTileRows];
  int32_t start[kTileRows];  // of a sum: what codes that are too high add
  for (int r = 0; r < task.rows; ++r) {
    int8_t* codes = parts.queries + r * d;
    scale[r] = quantize_block(task.queries.q + r * task.queries.stride, static_cast<int>(d), codes) *
               (task.queries.scale * kLog2E);
    i32x16 all = set1(0);
    for (int64_t i = 0; i < d; i += 16) all = add(all, load_bytes(codes + i));
    start[r] = -128 * static_cast<int32_t>(sum(to_float(all)));
  }
  __builtin_memset(parts.queries + task.rows * d, 0, static_cast<size_t>((kTileRows - task.rows) * d));
  const auto convert = [&](int64_t first, int count, const int32_t* sums) KE_LAMBDA {
    for (int r = 0; r < task.rows; ++r) {
      float* to = parts.scores + r * parts.stride + first * 16;
      const i32x16 from = set1(start[r]);
      const f32x16 unit = set1(scale[r]);
      for (int p = 0; p < count; ++p)
        store(to + p * 16, mul(mul(to_float(add(load(sums + p * kTileSums + r * 16), from)), unit),
                               load(task.key_scales + (first + p) * 16)));
    }
  };
  // One group of panels is converted while the next one is multiplied.
  int before = 0;
  for (int64_t first = 0; first < panels; first += kAtOnce) {
    const int count = panels - first < kAtOnce ? static_cast<int>(panels - first) : kAtOnce;
    int32_t* sums = parts.sums + first / kAtOnce % 2 * kAtOnce * kTileSums;
    multiply_keys(parts.queries, task.keys + first * d * 16, d, count, sums);
    if (before) convert(first - kAtOnce, before, parts.sums + (first / kAtOnce + 1) % 2 * kAtOnce * kTileSums);
    before = count;
  }
  const int64_t last = (panels - 1) / kAtOnce * kAtOnce;
  convert(last, before, parts.sums + last / kAtOnce % 2 * kAtOnce * kTileSums);
  f32x16 units = zero();
  const f32x16 nothing = set1(-__builtin_inff());
  for (int64_t i = 0; i < panels * 16; i += 16) units = add(units, load(task.key_scales + i));
  const float unit = sum(units);  // no number, if one of them is none
  for (int r = 0; r < task.rows; ++r) {
    float* s = parts.scores + r * parts.stride;
    if (task.positions % 16) {
      const auto behind = static_cast<__mmask16>(~first_lanes(static_cast<int>(task.positions % 16)));
      _mm512_mask_storeu_ps(s + (panels - 1) * 16, behind, nothing.v);
    }
    exact[r] = 0.0f * (unit * scale[r]);
  }
}

// 64 integers as bytes; they fit.
KE_INLINE void store_as_bytes(int8_t* to, __m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));  // by lanes of 128 bits
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi32(order, bytes));
}

// The weights of one row as codes, relative to the largest; returns 1 / their sum. n: scores, a multiple of 16.
float weights_of(const Parts& parts, int64_t n, int row) {
  const float* s = parts.scores + row * parts.stride;
  int8_t *high = parts.high + row * parts.padded, *low = parts.low + row * parts.padded;
  f32x16 largest = load(s);
  for (int64_t i = 16; i < n; i += 16) largest = max(largest, load(s + i));
  const f32x16 top = set1(max_lane(largest));
  const __m512i digit = _mm512_set1_epi32(127);
  i32x16 all = set1(0);
  for (int64_t i = 0; i < parts.padded; i += 64) {
    __m512i h[4], l[4];
    each<4>([&]<int j>() KE_LAMBDA {
      if (i + j * 16 >= n) {
        h[j] = l[j] = _mm512_setzero_si512();
        return;
      }
      const i32x16 code = to_int(mul(exp2_coarse(sub(load(s + i + j * 16), top)), set1(float{kMostCode})));
      all = add(all, code);
      h[j] = _mm512_srai_epi32(code.v, 7);
      l[j] = _mm512_and_si512(code.v, digit);
    });
    store_as_bytes(high + i, h[0], h[1], h[2], h[3]);
    store_as_bytes(low + i, l[0], l[1], l[2], l[3]);
  }
  return 1.0f / (sum(to_float(all)) + 0.0f * max_lane(top));  // integers below 2^24: exact; no number stays none
}

}  // namespace

void attend_codes(const CodedAttentionTask* t) {
  const CodedAttentionTask& task = *t;
  const Parts parts(task);
  const int64_t d = task.queries.head_dim;
  const int8_t *high = task.values, *low = task.values + d * parts.padded;
  const TileRegisters registers;
  float inverse[kTileRows];
  scores_of(task, parts, inverse);
  for (int r = 0; r < task.rows; ++r) inverse[r] += weights_of(parts, (task.positions + 15) / 16 * 16, r);
  const size_t unused = static_cast<size_t>((kTileRows - task.rows) * parts.padded);
  __builtin_memset(parts.high + task.rows * parts.padded, 0, unused);
  __builtin_memset(parts.low + task.rows * parts.padded, 0, unused);

  for (int64_t dim = 0; dim < d; dim += 32) {
    multiply_values(parts.high, parts.low, high + dim * parts.padded, low + dim * parts.padded, parts.padded,
                    parts.sums);
    for (int r = 0; r < task.rows; ++r)
      for (int p = 0; p < 2; ++p) {
        const int64_t at = 2 * p * kTileSums + r * 16, of = dim + p * 16;
        const f32x16 all = fma(to_float(load(parts.sums + at)), set1(16384.0f),
                               mul(to_float(load(parts.sums + at + kTileSums)), set1(128.0f)));
        store(task.out + r * task.out_stride + of,
              fma(mul(all, set1(inverse[r])), load(task.value_steps + of), load(task.value_steps + d + of)));
      }
  }
}

void pack_value_digits(const float* v, int64_t v_stride, int64_t n, int64_t head_dim, int8_t* digits, float* steps) {
  const int64_t padded = padded_positions(n);
  for (int64_t dim = 0; dim < head_dim; dim += 16) {
    const ValueRange range(v + dim, v_stride, n, 0.5f / kMostCode);
    store(steps + dim, range.step);
    store(steps + head_dim + dim, range.middle);
    int8_t *highs = digits + dim * padded, *lows = highs + head_dim * padded;
    const __m512i byte = _mm512_set1_epi32(255);
    for (int64_t i = 0; i < padded; i += 4) {
      __m512i h = _mm512_setzero_si512(), l = h;
      for (int64_t j = 3; j >= 0; --j) {
        h = _mm512_slli_epi32(h, 8), l = _mm512_slli_epi32(l, 8);
        if (i + j >= n) continue;
        const __m512i code = range.code(v + (i + j) * v_stride + dim).v;
        const __m512i digit = _mm512_srai_epi32(_mm512_add_epi32(code, _mm512_set1_epi32(64)), 7);
        h = _mm512_or_si512(h, _mm512_and_si512(digit, byte));
        l = _mm512_or_si512(l, _mm512_and_si512(_mm512_sub_epi32(code, _mm512_slli_epi32(digit, 7)), byte));
      }
      _mm512_storeu_si512(highs + i * 16, h);
      _mm512_storeu_si512(lows + i * 16, l);
    }
  }
}

}  // namespace ke::cpu::KE_ISA
