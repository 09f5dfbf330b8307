// Attention over many positions, one tile of keys and values after the other, with a running maximum and sum (online
// softmax). A tile stays in the cache while all rows meet it. A row's result depends on its own query, keys and values
// alone, in a fixed order: bits are the same in any batch.
#include "cpu/attention.inl"

namespace ke::cpu::KE_ISA {
namespace {

// Where the parts of a row's state are.
struct State {
  float* sums;
  int64_t dims;

  State(const KeyTileTask& task, int64_t row)
      : sums(task.states + row * row_state_floats(task.queries.head_dim)),
        dims(row_state_floats(task.queries.head_dim) - 16) {}
  float& top() const { return sums[dims]; }
  float& total() const { return sums[dims + 1]; }
};

// C rows of a tile.
template <int C>
struct Rows {
  const KeyTileTask& task;
  int64_t row;        // the first
  int64_t seen[C];    // positions of the tile
  int64_t positions;  // that some row sees; none: 0

  Rows(const KeyTileTask& t, int64_t first) : task(t), row(first), positions(0) {
    for (int c = 0; c < C; ++c) {
      const int64_t length = t.lengths ? t.lengths[row + c] : t.positions;
      seen[c] = length < 0 ? 0 : length < t.positions ? length : t.positions;
      if (seen[c] > positions) positions = seen[c];
    }
  }
  int64_t panels() const { return (positions + 15) / 16; }
  QueryRows queries(float factor) const {
    QueryRows q = task.queries;
    q.q += row * q.stride;
    q.scale *= factor;
    return q;
  }
};

// What a tile does to C rows: their new maxima, and by what the sums so far and those of the tile shrink.
template <int C>
struct Rescale {
  alignas(64) float tile_top[16] = {};         // maximum in the tile
  alignas(64) float new_top[16] = {};          // of all so far
  alignas(64) float earlier[16], of_tile[16];  // e^(old - new), e^(tile - new)

  // scores (C, stride): what a row does not see becomes -infinity. unit: of scores, in natural logarithms.
  Rescale(const Rows<C>& rows, float* scores, int64_t stride, float unit) {
    const float lowest = -__builtin_inff();
    const int64_t n = rows.panels() * 16;
    alignas(64) float old_top[16] = {};
    for (int c = 0; c < C; ++c) {
      float* s = scores + c * stride;
      for (int64_t i = rows.seen[c]; i < n; ++i) s[i] = lowest;
      f32x16 top = set1(lowest);
      for (int64_t i = 0; i < n; i += 16) top = max(top, load(s + i));
      const State state(rows.task, rows.row + c);
      old_top[c] = state.top();
      tile_top[c] = max_lane(top);
      new_top[c] = state.top() = old_top[c] > tile_top[c] ? old_top[c] : tile_top[c];  // lets NaN through
    }
    const f32x16 now = load(new_top), factor = set1(unit);
    store(earlier, exp(mul(sub(load(old_top), now), factor)));
    store(of_tile, exp(mul(sub(load(tile_top), now), factor)));
  }
};

// The float way: weights e^(score - maximum so far).
template <class W, int C>
void attend_floats(const KeyTileTask& task, int64_t row) {
  const Rows<C> rows(task, row);
  if (rows.positions == 0) return;
  const int64_t d = task.queries.head_dim, dims = (d + 15) / 16 * 16, stride = score_stride(kKeyTile);
  float* q = task.scratch;
  float* scores = q + kMaxHeadDim * C;
  if (task.key_scales) {
    code_scores<C>(QueryCodes<C>(rows.queries(1.0f)), d, task.keys, task.key_scales, rows.panels(), scores, stride);
  } else {
    pack_queries<C>(rows.queries(1.0f), q);
    float_scores<W, C>(q, d, task.keys, rows.panels(), scores, stride);
  }
  for (int c = 0; c < C && task.bias; ++c) add_bias(task.bias[row + c], rows.seen[c], scores + c * stride);
  const Rescale<C> to(rows, scores, stride, 1.0f);
  for (int c = 0; c < C; ++c) {
    float* s = scores + c * stride;
    const f32x16 top = set1(to.new_top[c]);
    f32x16 total = zero();
    for (int64_t i = 0; i < rows.panels() * 16; i += 16) {
      const f32x16 e = exp(sub(load(s + i), top));
      store(s + i, e);
      total = add(total, e);
    }
    const State state(task, row + c);
    state.total() = state.total() * to.earlier[c] + sum(total);
    const f32x16 shrink = set1(to.earlier[c]);
    if (to.earlier[c] != 1) map(state.sums, state.sums, dims, [=](f32x16 v, int64_t, int) { return mul(v, shrink); });
  }
  float_panels<W, C>(static_cast<const typename W::Stored*>(task.values), task.value_panel * 16, dims / 16,
                     rows.positions, RowTile{scores, stride}, State(task, row).sums, row_state_floats(d), true);
}

// The weights of a tile's values as codes of 14 bits, relative to the row's maximum in the tile: 128 * high + low.
template <int C>
struct WeightCodes {
  alignas(64) int8_t codes[C][2][kKeyTile];  // high, low
  int32_t start[C][2];                       // of sums: what codes of values that are too high add
  float total[C];                            // sum of codes

  WeightCodes(const Rows<C>& rows, const float* scores, int64_t stride, const Rescale<C>& to) {
    for (int c = 0; c < C; ++c) {
      const f32x16 top = set1(rows.seen[c] ? to.tile_top[c] : 0.0f);
      i32x16 highs = set1(0), lows = set1(0);
      for (int64_t i = 0; i < rows.panels() * 16; i += 16) {
        const f32x16 w = mul(exp2_coarse(sub(load(scores + c * stride + i), top)), set1(127.0f));
        const i32x16 high = to_int(w), low = to_int(mul(sub(w, to_float(high)), set1(128.0f)));
        store_bytes(codes[c][0] + i, high);
        store_bytes(codes[c][1] + i, low);
        highs = add(highs, high);
        lows = add(lows, low);
      }
      const float high = sum(to_float(highs)), low = sum(to_float(lows));  // integers below 2^16: exact
      start[c][0] = -CodeProducts::offset * static_cast<int32_t>(high);
      start[c][1] = -CodeProducts::offset * static_cast<int32_t>(low);
      total[c] = 128 * high + low;
    }
  }
};

// P panels of values from `first` on: what was summed before shrinks, the tile's sums are added. No int32 overflows: a
// sum of 256 products with high codes is below 2^23 in magnitude (before its offset is gone), 128 times that below
// 2^30.
template <int P, int C>
inline void add_value_codes(const Rows<C>& rows, const WeightCodes<C>& w, const Rescale<C>& to, int64_t first) {
  const KeyTileTask& task = rows.task;
  const uint8_t* values = static_cast<const uint8_t*>(task.values) + first * 16 * kKeyTile;
  i32x16 s[C][P];
  each<C, P>([&]<int c, int p>() KE_LAMBDA { s[c][p] = set1(w.start[c][0]); });
  const auto add_products = [&](int part) KE_LAMBDA {
    for (int64_t g = 0; g < (rows.positions + 3) / 4; ++g) {
      u8x64 v[P];
      each<P>([&]<int p>() KE_LAMBDA { v[p] = CodeProducts::weights(load64(values + p * 16 * kKeyTile + g * 64)); });
      each<C, P>([&]<int c, int p>()
                     KE_LAMBDA { s[c][p] = CodeProducts::add(s[c][p], v[p], w.codes[c][part] + g * 4); });
    }
  };
  add_products(0);
  each<C, P>([&]<int c, int p>() KE_LAMBDA { s[c][p] = add(shift_left<7>(s[c][p]), set1(w.start[c][1])); });
  add_products(1);
  each<P>([&]<int p>() KE_LAMBDA {
    const int64_t at = (first + p) * 16;
    const f32x16 step = load(task.value_steps + at), middle = load(task.value_steps + task.queries.head_dim + at);
    each<C>([&]<int c>() KE_LAMBDA {
      float* sums = State(task, rows.row + c).sums + at;
      const f32x16 tile = fma(to_float(s[c][p]), step, mul(middle, set1(w.total[c])));
      store(sums, add(mul(load(sums), set1(to.earlier[c])), mul(tile, set1(to.of_tile[c]))));
    });
  });
}

// The way with codes: of keys, of weights and of values.
template <int C>
void attend_codes(const KeyTileTask& task, int64_t row) {
  constexpr int P = tile_panels(C);
  const Rows<C> rows(task, row);
  if (rows.positions == 0) return;
  const int64_t d = task.queries.head_dim, panels = d / 16, stride = score_stride(kKeyTile);
  float* scores = task.scratch;
  code_scores<C>(QueryCodes<C>(rows.queries(kLog2E)), d, task.keys, task.key_scales, rows.panels(), scores, stride);
  const Rescale<C> to(rows, scores, stride, 1.0f / kLog2E);
  const WeightCodes<C> weights(rows, scores, stride, to);
  for (int c = 0; c < C; ++c) {
    float& total = State(task, row + c).total();
    total = total * to.earlier[c] + weights.total[c] * to.of_tile[c];
  }
  int64_t done = 0;
  for (; done + P <= panels; done += P) add_value_codes<P, C>(rows, weights, to, done);
  for (; done < panels; ++done) add_value_codes<1, C>(rows, weights, to, done);
}

}  // namespace

void begin_rows(float* states, int64_t rows, int64_t head_dim) {
  const int64_t state = row_state_floats(head_dim);
  for (int64_t i = 0; i < rows * state; i += 16) store(states + i, zero());
  for (int64_t r = 0; r < rows; ++r) states[r * state + state - 16] = -__builtin_inff();
}

void attend_tile(const KeyTileTask* task) {
  const int64_t tiles = tile_count(task->rows, kTileCols);
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t row = tile_start(task->rows, kTileCols, t), end = tile_start(task->rows, kTileCols, t + 1);
    for_columns<kTileCols>(static_cast<int>(end - row), [&]<int C>() {
      if (task->value_steps)
        attend_codes<C>(*task, row);
      else if (task->half)
        attend_floats<F16Weights, C>(*task, row);
      else
        attend_floats<F32Weights, C>(*task, row);
    });
  }
}

void finish_rows(const float* states, int64_t rows, int64_t head_dim, float* out, int64_t out_stride) {
  const int64_t state = row_state_floats(head_dim);
  for (int64_t r = 0; r < rows; ++r, states += state) {
    const f32x16 inverse = set1(1.0f / states[state - 15]);
    map(states, out + r * out_stride, head_dim, [=](f32x16 v, int64_t, int) { return mul(v, inverse); });
  }
}

}  // namespace ke::cpu::KE_ISA
