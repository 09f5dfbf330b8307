// Attention on the CPU: all-to-all over matrices, and causal over the KV cache.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "cpu/cpu_backend.h"
#include "cpu/kv_cache.h"
#include "cpu/tasks.h"

namespace ke::cpu {

namespace {

constexpr int64_t kWorkGrain = 1 << 15;  // products per task: below that, handing over costs more
constexpr int64_t kRunRows = 96;         // that meet a tile of cached keys while it is near
static_assert(kMaxHeadDim == ke::kMaxHeadDim);

}  // namespace

// Asks for some rows that will be read, or written, soon: those of one head are too far apart to be seen coming.
// Level: of the cache, 1 or 2.
template <int Level>
static void ask_for(Mat m, int64_t begin, int64_t end, int64_t col, int64_t cols) {
  for (int64_t r = begin; r < end; ++r)
    for (int64_t c = 0; c < cols; c += 16) __builtin_prefetch(m.data + r * m.stride + col + c, 0, 4 - Level);
}

// How attention over matrices is shared out: a task is one head with one of `splits` ranges of the rows' tiles.
struct CpuBackend::HeadTasks {
  int64_t head_dim, heads, group, rows;
  int tile_cols;
  int64_t splits, grain;
  int workers;

  int64_t head(int64_t task) const { return task / splits; }
  int64_t kv_head(int64_t task) const { return head(task) / group; }
  int64_t first_tile(int64_t split) const { return tile_count(rows, tile_cols) * split / splits; }
  int64_t row(int64_t tile) const { return tile_start(rows, tile_cols, tile); }
};

// What is added to the scores of the query at `position`, from key 0 on; nullptr: nothing is.
static const float* bias_row(const RelativeBias& b, int64_t head, int64_t position) {
  return b.table ? b.table->data + head * b.stride + b.zero - position : nullptr;
}

void CpuBackend::attention(Mat q, Mat k, Mat v, int64_t heads, float scale, Mat out, ScoreType score_type,
                           const RelativeBias& bias) {
  const int64_t d = head_dim_of(q, heads), n = k.rows;
  KE_ASSERT(k.cols % d == 0 && v.cols == k.cols && v.rows == n && out.rows == q.rows && out.cols == q.cols && n > 0);
  const int64_t group = head_group(heads, k.cols / d);
  if (q.rows == 0) return;
  KE_ASSERT(fits(bias, heads, q.rows - 1, n - 1) && (!bias.table || score_type == ScoreType::Float));
  const int64_t enough = 2 * pool_.threads();
  const int64_t splits =
      heads >= enough ? 1 : std::min(tile_count(q.rows, kernels_.tile_cols), (enough + heads - 1) / heads);
  const int64_t grain = std::max<int64_t>(1, kWorkGrain / (q.rows * n * d / splits + 1));
  const HeadTasks tasks{
      d, heads, group, q.rows, kernels_.tile_cols, splits, grain, task_workers(pool_, heads * splits, grain)};
  const bool codes = score_type == ScoreType::Int8 && d % 16 == 0;
  if (n <= kOnePassKeys && codes && kernels_.attend_codes && d % 64 == 0)
    attend_by_codes(tasks, q, k, v, scale, out);
  else if (n <= kOnePassKeys)
    attend_at_once(tasks, q, k, v, scale, codes, bias, out);
  else
    attend_by_tiles(tasks, q, k, v, scale, codes, bias, out);
}

// Each task packs all of its head's keys and values into panels of its own, then goes through its tiles of queries.
void CpuBackend::attend_at_once(const HeadTasks& tasks, Mat q, Mat k, Mat v, float scale, bool codes,
                                const RelativeBias& bias, Mat out) {
  const int64_t d = tasks.head_dim, dims = (d + 15) / 16 * 16, n = k.rows, positions = (n + 15) / 16 * 16;
  const size_t key_bytes = Arena::padded(positions * d * (codes ? 1 : sizeof(float)));
  const size_t scale_bytes = codes ? Arena::padded((positions + d) * sizeof(float)) : 0;  // and the mean key
  const size_t value_bytes = Arena::padded(n * dims * sizeof(float));
  const size_t scratch_bytes = Arena::padded(attention_scratch_floats(n) * sizeof(float));
  ArenaPool::Lease arena(arenas_);
  const size_t own_bytes = key_bytes + scale_bytes + value_bytes + scratch_bytes;
  arena->reset(tasks.workers * own_bytes);
  uint8_t* memory = arena->take(tasks.workers * own_bytes);

  run_tasks(pool_, tasks.heads * tasks.splits, tasks.grain, [&](int worker, int64_t task) {
    const int64_t first = tasks.head(task) * d, kv = tasks.kv_head(task) * d, split = task % tasks.splits;
    uint8_t* keys = memory + worker * own_bytes;
    float* scales = codes ? reinterpret_cast<float*>(keys + key_bytes) : nullptr;
    float* values = reinterpret_cast<float*>(keys + key_bytes + scale_bytes);
    if (codes) {
      kernels_.mean_row(k.data + kv, k.stride, n, d, scales + positions);
      kernels_.pack_key_codes(k.data + kv, k.stride, n, d, scales + positions, keys, scales);
    } else {
      kernels_.pack_keys(k.data + kv, k.stride, n, d, reinterpret_cast<float*>(keys));
    }
    kernels_.pack_values(v.data + kv, v.stride, n, d, values);
    const int64_t begin = tasks.first_tile(split), end = tasks.first_tile(split + 1);
    const int64_t next = task + 1 < tasks.heads * tasks.splits ? tasks.kv_head(task + 1) * d : kv;
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t row = tasks.row(tile);
      ask_for<1>(out, row, tasks.row(tile + 1), first, d);
      if (tile + 1 < end) ask_for<1>(q, tasks.row(tile + 1), tasks.row(tile + 2), first, d);
      if (next != kv) {
        const int64_t k0 = n * (tile - begin) / (end - begin), k1 = n * (tile - begin + 1) / (end - begin);
        ask_for<2>(k, k0, k1, next, d);
        ask_for<2>(v, k0, k1, next, d);
      }
      AttentionTask t;
      t.queries = {q.data + row * q.stride + first, q.stride, d, scale};
      t.rows = static_cast<int>(tasks.row(tile + 1) - row);
      for (int r = 0; r < t.rows; ++r) {
        t.lengths[r] = n;
        t.bias[r] = bias_row(bias, tasks.head(task), row + r);
      }
      t.half = false;
      t.tiles = {nullptr, nullptr, 0, 0, keys, reinterpret_cast<const uint8_t*>(values), n};
      t.key_scales = scales;
      t.out = out.data + row * out.stride + first;
      t.out_stride = out.stride;
      t.scratch = reinterpret_cast<float*>(keys + key_bytes + scale_bytes + value_bytes);
      kernels_.attention(&t);
    }
  });
}

// The same with codes of values, too.
void CpuBackend::attend_by_codes(const HeadTasks& tasks, Mat q, Mat k, Mat v, float scale, Mat out) {
  constexpr int64_t kRows = 16;
  const int64_t d = tasks.head_dim, n = k.rows, positions = (n + 15) / 16 * 16;
  const size_t key_bytes = Arena::padded(positions * d), digit_bytes = Arena::padded(2 * d * padded_positions(n));
  const size_t scale_bytes = Arena::padded((positions + 3 * d) * sizeof(float));  // of keys, mean key, of values
  const size_t own_bytes = key_bytes + digit_bytes + scale_bytes + Arena::padded(coded_attention_scratch_bytes(d, n));
  ArenaPool::Lease arena(arenas_);
  arena->reset(tasks.workers * own_bytes);
  uint8_t* memory = arena->take(tasks.workers * own_bytes);

  run_tasks(pool_, tasks.heads * tasks.splits, tasks.grain, [&](int worker, int64_t task) {
    const int64_t first = tasks.head(task) * d, kv = tasks.kv_head(task) * d, split = task % tasks.splits;
    uint8_t* keys = memory + worker * own_bytes;
    int8_t* digits = reinterpret_cast<int8_t*>(keys + key_bytes);
    float *scales = reinterpret_cast<float*>(keys + key_bytes + digit_bytes), *mean = scales + positions,
          *steps = mean + d;
    kernels_.mean_row(k.data + kv, k.stride, n, d, mean);
    kernels_.pack_key_codes(k.data + kv, k.stride, n, d, mean, keys, scales);
    kernels_.pack_value_digits(v.data + kv, v.stride, n, d, digits, steps);
    const int64_t begin = tasks.row(tasks.first_tile(split)), end = tasks.row(tasks.first_tile(split + 1));
    const int64_t next = task + 1 < tasks.heads * tasks.splits ? tasks.kv_head(task + 1) * d : kv;
    for (int64_t row = begin; row < end; row += kRows) {
      const int64_t rows = std::min(kRows, end - row);
      ask_for<1>(q, row + rows, std::min(end, row + 2 * kRows), first, d);
      if (next != kv) {
        const int64_t k0 = n * (row - begin) / (end - begin), k1 = n * (row + rows - begin) / (end - begin);
        ask_for<2>(k, k0, k1, next, d);
        ask_for<2>(v, k0, k1, next, d);
      }
      CodedAttentionTask t;
      t.queries = {q.data + row * q.stride + first, q.stride, d, scale};
      t.rows = static_cast<int>(rows);
      t.positions = n;
      t.keys = keys;
      t.key_scales = scales;
      t.values = digits;
      t.value_steps = steps;
      t.out = out.data + row * out.stride + first;
      t.out_stride = out.stride;
      t.scratch = keys + key_bytes + digit_bytes + scale_bytes;
      kernels_.attend_codes(&t);
    }
  });
}

// Each task packs one tile of its head's keys and values at a time, and all of its rows meet it. Their queries are
// copied next to each other first: they are read anew for each tile, and rows of all heads are too far apart to be
// fetched ahead.
void CpuBackend::attend_by_tiles(const HeadTasks& tasks, Mat q, Mat k, Mat v, float scale, bool codes,
                                 const RelativeBias& bias, Mat out) {
  const int64_t d = tasks.head_dim, dims = (d + 15) / 16 * 16, n = k.rows;
  const bool value_codes = codes && kernels_.pack_value_codes;
  int64_t most_rows = 0;
  for (int64_t s = 0; s < tasks.splits; ++s)
    most_rows = std::max(most_rows, tasks.row(tasks.first_tile(s + 1)) - tasks.row(tasks.first_tile(s)));
  const size_t key_bytes = Arena::padded(kKeyTile * d * (codes ? 1 : sizeof(float)));
  const size_t value_bytes = Arena::padded(kKeyTile * dims * (value_codes ? 1 : sizeof(float)));
  const size_t scale_bytes = Arena::padded((kKeyTile + 3 * dims) * sizeof(float));  // of keys, mean key, of values
  const size_t scratch_bytes = Arena::padded(key_tile_scratch_floats() * sizeof(float));
  const size_t state_bytes = Arena::padded(most_rows * row_state_floats(d) * sizeof(float));
  const size_t query_bytes = Arena::padded(most_rows * d * sizeof(float));
  const size_t bias_bytes = bias.table ? Arena::padded(most_rows * sizeof(const float*)) : 0;
  const size_t own_bytes =
      key_bytes + value_bytes + scale_bytes + scratch_bytes + state_bytes + query_bytes + bias_bytes;
  ArenaPool::Lease arena(arenas_);
  arena->reset(tasks.workers * own_bytes);
  uint8_t* memory = arena->take(tasks.workers * own_bytes);

  run_tasks(pool_, tasks.heads * tasks.splits, tasks.grain, [&](int worker, int64_t task) {
    const int64_t first = tasks.head(task) * d, kv = tasks.kv_head(task) * d, split = task % tasks.splits;
    const int64_t row = tasks.row(tasks.first_tile(split)), rows = tasks.row(tasks.first_tile(split + 1)) - row;
    uint8_t *keys = memory + worker * own_bytes, *values = keys + key_bytes;
    float* key_scales = reinterpret_cast<float*>(values + value_bytes);
    float *mean = key_scales + kKeyTile, *value_steps = mean + dims;
    if (codes) kernels_.mean_row(k.data + kv, k.stride, n, d, mean);
    KeyTileTask t;
    t.scratch = reinterpret_cast<float*>(values + value_bytes + scale_bytes);
    t.states = reinterpret_cast<float*>(values + value_bytes + scale_bytes + scratch_bytes);
    float* queries = reinterpret_cast<float*>(values + value_bytes + scale_bytes + scratch_bytes + state_bytes);
    for (int64_t r = 0; r < rows; ++r) std::copy_n(q.data + (row + r) * q.stride + first, d, queries + r * d);
    t.queries = {queries, d, d, scale};
    t.rows = rows;
    t.lengths = nullptr;
    const auto biases = reinterpret_cast<const float**>(reinterpret_cast<uint8_t*>(queries) + query_bytes);
    for (int64_t r = 0; r < rows && bias.table; ++r) biases[r] = bias_row(bias, tasks.head(task), row + r);
    if (bias.table) t.bias = biases;
    t.half = false;
    t.keys = keys;
    t.key_scales = codes ? key_scales : nullptr;
    t.values = values;
    t.value_steps = value_codes ? value_steps : nullptr;
    kernels_.begin_rows(t.states, rows, d);
    for (int64_t at = 0; at < n; at += kKeyTile) {
      const float *tile_k = k.data + at * k.stride + kv, *tile_v = v.data + at * v.stride + kv;
      t.positions = t.value_panel = std::min(kKeyTile, n - at);
      if (codes)
        kernels_.pack_key_codes(tile_k, k.stride, t.positions, d, mean, keys, key_scales);
      else
        kernels_.pack_keys(tile_k, k.stride, t.positions, d, reinterpret_cast<float*>(keys));
      if (value_codes)
        kernels_.pack_value_codes(tile_v, v.stride, t.positions, d, values, value_steps);
      else
        kernels_.pack_values(tile_v, v.stride, t.positions, d, reinterpret_cast<float*>(values));
      kernels_.attend_tile(&t);
      for (int64_t r = 0; r < rows && bias.table; ++r) biases[r] += kKeyTile;
    }
    kernels_.finish_rows(t.states, rows, d, out.data + row * out.stride + first, out.stride);
  });
}

void CpuBackend::kv_write(Mat k, Mat v, int layer, const std::vector<KvPosition>& positions) {
  KE_ASSERT(k.rows == v.rows && k.cols == v.cols && static_cast<int64_t>(positions.size()) >= k.rows);
  for (int64_t r = 0; r < k.rows; ++r) {
    const KvCache& c = *positions[r].cache;
    KE_ASSERT(layer >= 0 && layer < c.layers && c.width == k.cols && positions[r].pos >= 0 &&
              positions[r].pos < c.capacity);
  }
  const int64_t grain = std::max<int64_t>(1, 4096 / k.cols);
  run_tasks(pool_, k.rows, grain, [&](int, int64_t r) {
    const auto& cache = static_cast<const CpuKvCache&>(*positions[r].cache);
    const int64_t d = cache.head_dim(), pos = positions[r].pos;
    for (int64_t h = 0; h < cache.heads(); ++h) {
      const float *key = k.data + r * k.stride + h * d, *value = v.data + r * v.stride + h * d;
      if (cache.quantized()) {
        const KvCodes at = cache.codes(layer, h, pos);
        kv_codes_.store(key, value, d, &at);
      } else {
        kernels_.store_kv(key, value, d, cache.panel(pos), cache.half(), cache.keys(layer, h, pos),
                          cache.values(layer, h, pos));
      }
    }
  });
}

void CpuBackend::kv_attention(Mat q, int layer, int64_t heads, float scale, const std::vector<KvPosition>& positions,
                              Mat out, const RelativeBias& bias) {
  const int64_t d = head_dim_of(q, heads);
  KE_ASSERT(out.rows == q.rows && out.cols == q.cols && static_cast<int64_t>(positions.size()) >= q.rows);
  if (q.rows == 0) return;
  const auto& first = static_cast<const CpuKvCache&>(*positions[0].cache);
  const int64_t kv_heads = first.heads(), group = head_group(heads, kv_heads);
  const bool quantized = first.quantized();
  int64_t longest = 0;
  for (int64_t r = 0; r < q.rows; ++r) {
    const auto& c = static_cast<const CpuKvCache&>(*positions[r].cache);
    KE_ASSERT(layer >= 0 && layer < c.layers && c.heads() == kv_heads && c.head_dim() == d && positions[r].pos >= 0 &&
              positions[r].pos < c.capacity && c.quantized() == quantized);
    longest = std::max<int64_t>(longest, positions[r].pos + 1);
  }
  KE_ASSERT(fits(bias, heads, longest - 1, 0));
  // A run: rows of one cache that all go in one pass, or all tile by tile; runs are counted first, then listed, to fit
  // one arena. Rows of quantized caches all go by tiles, each of which becomes floats while the rows of a run meet it.
  const auto by_tiles = [&](int64_t r) { return quantized || positions[r].pos >= kOnePassKeys; };
  const auto run_end = [&](int64_t r) {
    const int64_t most = by_tiles(r) ? kRunRows : kernels_.tile_cols;
    int64_t end = r + 1;
    while (end < q.rows && end - r < most && positions[end].cache == positions[r].cache && by_tiles(end) == by_tiles(r))
      ++end;
    return end;
  };
  int64_t runs = 0, most_rows = 0;  // of a run that goes tile by tile
  for (int64_t r = 0; r < q.rows; r = run_end(r), ++runs)
    if (by_tiles(r)) most_rows = std::max(most_rows, run_end(r) - r);

  const int64_t grain = std::max<int64_t>(1, kWorkGrain / (longest * d + 1));
  const int workers = task_workers(pool_, heads * runs, grain);
  const int64_t scratch = attention_scratch_floats(std::min(longest, kOnePassKeys));
  const size_t scratch_bytes = Arena::padded(sizeof(float) * std::max(scratch, key_tile_scratch_floats()));
  const size_t length_bytes = Arena::padded(most_rows * sizeof(int64_t));
  const size_t bias_bytes = bias.table ? Arena::padded(most_rows * sizeof(const float*)) : 0;
  const size_t state_bytes = Arena::padded(most_rows * row_state_floats(d) * sizeof(float));
  const int64_t tile = quantized ? (std::min(longest, kKeyTile) + 15) / 16 * 16 : 0, dims = (d + 15) / 16 * 16;
  const size_t key_bytes = Arena::padded(tile * d * sizeof(float));
  const size_t value_bytes = Arena::padded(tile * dims * sizeof(float));
  const size_t own_bytes = scratch_bytes + length_bytes + bias_bytes + state_bytes + key_bytes + value_bytes;
  const size_t list_bytes = Arena::padded((runs + 1) * sizeof(int64_t));
  ArenaPool::Lease arena(arenas_);
  arena->reset(list_bytes + workers * own_bytes);
  auto* starts = reinterpret_cast<int64_t*>(arena->take(list_bytes));
  uint8_t* memory = arena->take(workers * own_bytes);
  int64_t n = 0;
  for (int64_t r = 0; r < q.rows; r = run_end(r)) starts[n++] = r;
  starts[n] = q.rows;

  run_tasks(pool_, heads * runs, grain, [&](int worker, int64_t task) {
    const int64_t head = task / runs, row = starts[task % runs], rows = starts[task % runs + 1] - row;
    const auto& cache = static_cast<const CpuKvCache&>(*positions[row].cache);
    const QueryRows queries{q.data + row * q.stride + head * d, q.stride, d, scale};
    const KeyTiles tiles = cache.tiles(layer, head / group);
    float* to = out.data + row * out.stride + head * d;
    uint8_t* own = memory + worker * own_bytes;
    if (!by_tiles(row)) {
      AttentionTask t;
      t.queries = queries;
      t.rows = static_cast<int>(rows);
      for (int r = 0; r < t.rows; ++r) {
        t.lengths[r] = positions[row + r].pos + 1;
        t.bias[r] = bias_row(bias, head, positions[row + r].pos);
      }
      t.half = cache.half();
      t.tiles = tiles;
      t.key_scales = nullptr;
      t.out = to;
      t.out_stride = out.stride;
      t.scratch = reinterpret_cast<float*>(own);
      return kernels_.attention(&t);
    }
    auto* lengths = reinterpret_cast<int64_t*>(own + scratch_bytes);
    const auto biases = reinterpret_cast<const float**>(own + scratch_bytes + length_bytes);
    int64_t seen = 0;
    for (int64_t r = 0; r < rows; ++r) {
      lengths[r] = positions[row + r].pos + 1;
      if (bias.table) biases[r] = bias_row(bias, head, positions[row + r].pos);
      seen = std::max(seen, lengths[r]);
    }
    KeyTileTask t;
    t.queries = queries;
    t.rows = rows;
    t.lengths = lengths;
    t.half = cache.half();
    t.key_scales = t.value_steps = nullptr;
    t.scratch = reinterpret_cast<float*>(own);
    t.states = reinterpret_cast<float*>(own + scratch_bytes + length_bytes + bias_bytes);
    if (bias.table) t.bias = biases;
    auto* tile_keys = reinterpret_cast<float*>(own + scratch_bytes + length_bytes + bias_bytes + state_bytes);
    auto* tile_values = reinterpret_cast<float*>(reinterpret_cast<uint8_t*>(tile_keys) + key_bytes);
    kernels_.begin_rows(t.states, rows, d);
    for (int64_t at = 0; at < seen; at += kKeyTile) {
      t.positions = std::min(kKeyTile, seen - at);
      if (quantized) {
        const KvCodes codes = cache.codes(layer, head / group, at);
        kv_codes_.load(&codes, t.positions, d, tile_keys, tile_values);
        t.keys = tile_keys;
        t.values = tile_values;
        t.value_panel = t.positions;
      } else {
        t.keys = tiles.keys_of(at / kKeyTile);
        t.values = tiles.values_of(at / kKeyTile);
        t.value_panel = tiles.panel_of(at / kKeyTile);
      }
      kernels_.attend_tile(&t);
      for (int64_t r = 0; r < rows; ++r) {
        lengths[r] -= kKeyTile;
        if (bias.table) biases[r] += kKeyTile;
      }
    }
    kernels_.finish_rows(t.states, rows, d, to, out.stride);
  });
}

}  // namespace ke::cpu
