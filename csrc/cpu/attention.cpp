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
static_assert(kMaxHeadDim == ke::kMaxHeadDim);

}  // namespace

void CpuBackend::attention(Mat q, Mat k, Mat v, int64_t heads, float scale, Mat out, ScoreType score_type) {
  const int64_t d = head_dim_of(q, heads), dims = (d + 15) / 16 * 16, n = k.rows;
  KE_ASSERT(k.cols % d == 0 && v.cols == k.cols && v.rows == n && out.rows == q.rows && out.cols == q.cols && n > 0);
  const int64_t group = head_group(heads, k.cols / d);
  if (q.rows == 0) return;
  const int tile_cols = kernels_.tile_cols;
  const int64_t tiles = tile_count(q.rows, tile_cols);
  const int64_t enough = 2 * pool_.threads();
  const int64_t splits = heads >= enough ? 1 : std::min(tiles, (enough + heads - 1) / heads);
  const int64_t grain = std::max<int64_t>(1, kWorkGrain / (q.rows * n * d / splits + 1));

  // Each task packs its head's keys and values into panels of its own, then goes through its tiles of queries.
  const int64_t positions = (n + 15) / 16 * 16;
  const int workers = task_workers(pool_, heads * splits, grain);
  const bool codes = score_type == ScoreType::Int8 && d % 16 == 0;
  const size_t key_bytes = Arena::padded(positions * d * (codes ? 1 : sizeof(float)));
  const size_t scale_bytes = codes ? Arena::padded(positions * sizeof(float)) : 0;
  const size_t value_bytes = Arena::padded(n * dims * sizeof(float));
  const size_t scratch_bytes = Arena::padded(attention_scratch_floats(n) * sizeof(float));
  ArenaPool::Lease arena(arenas_);
  const size_t own_bytes = key_bytes + scale_bytes + value_bytes + scratch_bytes;
  arena->reset(workers * own_bytes);
  uint8_t* memory = arena->take(workers * own_bytes);

  run_tasks(pool_, heads * splits, grain, [&](int worker, int64_t task) {
    const int64_t head = task / splits, split = task % splits, first = head * d, kv = head / group * d;
    uint8_t* keys = memory + worker * own_bytes;
    float* scales = codes ? reinterpret_cast<float*>(keys + key_bytes) : nullptr;
    float* values = reinterpret_cast<float*>(keys + key_bytes + scale_bytes);
    if (codes)
      kernels_.pack_key_codes(k.data + kv, k.stride, n, d, keys, scales);
    else
      kernels_.pack_keys(k.data + kv, k.stride, n, d, reinterpret_cast<float*>(keys));
    kernels_.pack_values(v.data + kv, v.stride, n, d, values);
    for (int64_t tile = tiles * split / splits; tile < tiles * (split + 1) / splits; ++tile) {
      const int64_t row = tile_start(q.rows, tile_cols, tile);
      AttentionTask t;
      t.q = q.data + row * q.stride + first;
      t.q_stride = q.stride;
      t.rows = static_cast<int>(tile_start(q.rows, tile_cols, tile + 1) - row);
      for (int r = 0; r < t.rows; ++r) t.lengths[r] = n;
      t.head_dim = d;
      t.scale = scale;
      t.half = false;
      t.keys = keys;
      t.key_scales = scales;
      t.values = values;
      t.value_panel = n;
      t.out = out.data + row * out.stride + first;
      t.out_stride = out.stride;
      t.scratch = reinterpret_cast<float*>(keys + key_bytes + scale_bytes + value_bytes);
      kernels_.attention(&t);
    }
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
    for (int64_t h = 0; h < cache.heads(); ++h)
      kernels_.store_kv(k.data + r * k.stride + h * d, v.data + r * v.stride + h * d, d, cache.capacity, cache.half(),
                        cache.keys(layer, h, pos), cache.values(layer, h, pos));
  });
}

void CpuBackend::kv_attention(Mat q, int layer, int64_t heads, float scale, const std::vector<KvPosition>& positions,
                              Mat out) {
  const int64_t d = head_dim_of(q, heads);
  KE_ASSERT(out.rows == q.rows && out.cols == q.cols && static_cast<int64_t>(positions.size()) >= q.rows);
  if (q.rows == 0) return;
  const int64_t kv_heads = static_cast<const CpuKvCache&>(*positions[0].cache).heads(),
                group = head_group(heads, kv_heads);
  int64_t longest = 0;
  for (int64_t r = 0; r < q.rows; ++r) {
    const auto& c = static_cast<const CpuKvCache&>(*positions[r].cache);
    KE_ASSERT(layer >= 0 && layer < c.layers && c.heads() == kv_heads && c.head_dim() == d && positions[r].pos >= 0 &&
              positions[r].pos < c.capacity);
    longest = std::max<int64_t>(longest, positions[r].pos + 1);
  }
  // A tile is a run of rows of one cache; tiles are counted first, then listed, to fit one arena.
  const auto run_end = [&](int64_t r) {
    int64_t end = r + 1;
    while (end < q.rows && end - r < kernels_.tile_cols && positions[end].cache == positions[r].cache) ++end;
    return end;
  };
  int64_t tiles = 0;
  for (int64_t r = 0; r < q.rows; r = run_end(r)) ++tiles;

  const int64_t grain = std::max<int64_t>(1, kWorkGrain / (longest * d + 1));
  const int workers = task_workers(pool_, heads * tiles, grain);
  const size_t scratch_bytes = Arena::padded(attention_scratch_floats(longest) * sizeof(float));
  const size_t list_bytes = Arena::padded((tiles + 1) * sizeof(int64_t));
  ArenaPool::Lease arena(arenas_);
  arena->reset(list_bytes + workers * scratch_bytes);
  auto* starts = reinterpret_cast<int64_t*>(arena->take(list_bytes));
  uint8_t* memory = arena->take(workers * scratch_bytes);
  int64_t n = 0;
  for (int64_t r = 0; r < q.rows; r = run_end(r)) starts[n++] = r;
  starts[n] = q.rows;

  run_tasks(pool_, heads * tiles, grain, [&](int worker, int64_t task) {
    const int64_t head = task / tiles, row = starts[task % tiles];
    const auto& cache = static_cast<const CpuKvCache&>(*positions[row].cache);
    AttentionTask t;
    t.q = q.data + row * q.stride + head * d;
    t.q_stride = q.stride;
    t.rows = static_cast<int>(starts[task % tiles + 1] - row);
    for (int r = 0; r < t.rows; ++r) t.lengths[r] = positions[row + r].pos + 1;
    t.head_dim = d;
    t.scale = scale;
    t.half = cache.half();
    t.keys = cache.keys(layer, head / group);
    t.key_scales = nullptr;
    t.values = cache.values(layer, head / group);
    t.value_panel = cache.capacity;
    t.out = out.data + row * out.stride + head * d;
    t.out_stride = out.stride;
    t.scratch = reinterpret_cast<float*>(memory + worker * scratch_bytes);
    kernels_.attention(&t);
  });
}

}  // namespace ke::cpu
