// Attention of a tile of rows of one head: scores against panels of keys, softmax per row, sums over panels of values.
// A row's result depends on its own query, keys and values alone, in a fixed order: bits are the same in any batch.

// Floats between the score rows of a tile; the odd vector keeps rows of a power-of-two length out of one cache set.
static constexpr int64_t score_stride(int64_t positions) { return (positions + 15) / 16 * 16 + 16; }

// s[0, n) becomes e^(s - max); returns the sum. s is 16-padded.
inline float softmax_numerators(float* s, int64_t n) {
  const float lowest = -__builtin_inff();
  for (int64_t i = n; i % 16; ++i) s[i] = lowest;
  f32x16 top = set1(lowest);
  for (int64_t i = 0; i < n; i += 16) top = max(top, load(s + i));
  const f32x16 m = set1(max_lane(top));
  f32x16 total = zero();
  for (int64_t i = 0; i < n; i += 16) {
    const f32x16 e = exp(sub(load(s + i), m));
    store(s + i, e);
    total = add(total, e);
  }
  return sum(total);
}

template <class W, int P, int C, class X>
inline int64_t float_panels(const typename W::Stored* w, int64_t panel, int64_t panels, int64_t n, X x, float* acc,
                            int64_t acc_stride, int64_t done = 0) {
  for (; done + P <= panels; done += P)
    float_tile<P, C>(SeparatePanels<W, P>{w + done * panel, panel}, n, x, acc + 16 * done, acc_stride);
  return done;
}

template <class W, int C>
void attention_tile(const AttentionTask& task) {
  const int64_t d = task.head_dim, dims = (d + 15) / 16 * 16;
  int64_t longest = 0;
  for (int c = 0; c < C; ++c) longest = task.lengths[c] > longest ? task.lengths[c] : longest;
  const int64_t positions = (longest + 15) / 16 * 16, stride = score_stride(longest);
  float* q = task.scratch;                // [head_dim][C], scaled
  float* out = q + kMaxHeadDim * C;       // [C][dims]
  float* scores = out + kMaxHeadDim * C;  // [C][stride]
  for (int c = 0; c < C; ++c)
    for (int64_t i = 0; i < d; ++i) q[i * C + c] = task.q[c * task.q_stride + i] * task.scale;

  const auto* keys = static_cast<const typename W::Stored*>(task.keys);
  const auto* values = static_cast<const typename W::Stored*>(task.values);
  const PackedTile<C> queries{q};
  int64_t done = float_panels<W, kPanels, C>(keys, d * 16, positions / 16, d, queries, scores, stride);
  if constexpr (kPanels > 1) float_panels<W, 1, C>(keys, d * 16, positions / 16, d, queries, scores, stride, done);

  f32x16 inverse[C];
  for (int c = 0; c < C; ++c) {
    float* s = scores + c * stride;
    inverse[c] = set1(1.0f / softmax_numerators(s, task.lengths[c]));
    for (int64_t i = task.lengths[c]; i < longest; ++i) s[i] = 0;  // later positions belong to the tile's other rows
  }

  const RowTile weights{scores, stride};
  const int64_t value_panel = task.value_panel * 16;
  done = float_panels<W, kPanels, C>(values, value_panel, dims / 16, longest, weights, out, kMaxHeadDim);
  if constexpr (kPanels > 1)
    float_panels<W, 1, C>(values, value_panel, dims / 16, longest, weights, out, kMaxHeadDim, done);

  for (int c = 0; c < C; ++c)
    map(out + c * kMaxHeadDim, task.out + c * task.out_stride, d,
        [&](f32x16 v, int64_t, int) { return mul(v, inverse[c]); });
}

void attention(const AttentionTask* task) {
  for_columns<kTileCols>(task->rows, [&]<int C>() {
    if (task->half)
      attention_tile<F16Weights, C>(*task);
    else
      attention_tile<F32Weights, C>(*task);
  });
}

// values[i * step] = x[i]. Written so that GCC does not make slow scatter instructions of it.
template <class Value>
inline void scatter(const Value* x, int n, Value* to, int64_t step) {
  for (int i = 0; i < n; ++i) {
    to[i * step] = x[i];
    asm volatile("" ::: "memory");
  }
}

void store_kv(const float* k, const float* v, int64_t head_dim, int64_t value_panel, bool half, void* key,
              void* value) {
  for (int64_t i = 0; i < head_dim; i += 16) {
    const int n = head_dim - i < 16 ? static_cast<int>(head_dim - i) : 16;
    const f32x16 values = load_n(v + i, n);
    if (half) {
      alignas(32) uint16_t bits[16];
      store_half(bits, load_n(k + i, n));
      scatter(bits, n, static_cast<uint16_t*>(key) + i * 16, 16);
      store_half(static_cast<uint16_t*>(value) + i * value_panel, values);
    } else {
      scatter(k + i, n, static_cast<float*>(key) + i * 16, 16);
      store(static_cast<float*>(value) + i * value_panel, values);
    }
  }
}

void lay_kv(const float* k, int64_t k_stride, const float* v, int64_t v_stride, int64_t n, int64_t head_dim,
            float* keys, float* values) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int64_t dim = 0; dim < head_dim; dim += 16) {
      // Rows a power of two apart share one cache set: each line is read once, into a block of its own.
      const int count = head_dim - dim < 16 ? static_cast<int>(head_dim - dim) : 16;
      alignas(64) float block[16 * 16];
      for (int r = 0; r < 16; ++r) store(block + r * 16, load_n(k + (i + r) * k_stride + dim, count));
      for (int j = 0; j < count; j += 4) {
        f32x16 t[4];
        transpose_4(block + j, 16, t);
        for (int l = 0; l < 4; ++l) store(keys + i * head_dim + (dim + j + l) * 16, t[l]);
      }
    }
  for (; i < n; ++i) scatter(k + i * k_stride, static_cast<int>(head_dim), keys + i / 16 * 16 * head_dim + i % 16, 16);
  for (int64_t dim = 0; dim < head_dim; dim += 16) {
    const int count = head_dim - dim < 16 ? static_cast<int>(head_dim - dim) : 16;
    for (i = 0; i < n; ++i) store(values + dim * n + i * 16, load_n(v + i * v_stride + dim, count));
  }
}
