// y = act(x W^T + b) + residual: packs x for the kernels, then shares the panels of W among the threads.
#include <algorithm>

#include "base/error.h"
#include "cpu/cpu_backend.h"
#include "cpu/tasks.h"

namespace ke::cpu {

namespace {

constexpr int64_t kPackGrain = 32768;    // values of x per packing task
constexpr int64_t kWorkGrain = 1 << 18;  // products per task: below that, handing over costs more
constexpr int64_t kTasksPerThread = 4;   // at least, where the matrix allows it

struct PackedBytes {
  size_t values, codes, scale, total, sum16, sum32, mins, starts;
  size_t all() const {
    return Arena::padded(values) + Arena::padded(codes) + Arena::padded(scale) + Arena::padded(total) +
           Arena::padded(sum16) + Arena::padded(sum32) + Arena::padded(mins) + Arena::padded(starts);
  }
};

PackedBytes packed_bytes(int64_t rows, int64_t cols, bool floats, bool quantized, bool only_i8) {
  const size_t n = static_cast<size_t>(rows), blocks = (cols + kBlock - 1) / kBlock;
  PackedBytes b{};
  if (floats) b.values = n * ((cols + kFloatChunk - 1) / kFloatChunk * kFloatChunk) * sizeof(float);
  if (quantized) {
    const size_t of_rows = n * blocks + kTilePadding;
    b.codes = of_rows * kBlock;
    b.scale = of_rows * (kBlock / 32) * sizeof(float);
    b.total = of_rows * sizeof(int32_t);
    if (only_i8) return b;
    b.starts = of_rows * kStarts * sizeof(int32_t);
    b.sum16 = of_rows * 16 * sizeof(int32_t);
    b.sum32 = of_rows * 8 * sizeof(int32_t);
    b.mins = of_rows * 16;
  }
  return b;
}

Packed take_packed(Arena& arena, int64_t rows, int64_t cols, int block, const PackedBytes& b, bool only_i8) {
  Packed p{};
  p.rows = rows, p.cols = cols, p.block = block, p.only_i8 = only_i8;
  p.values = reinterpret_cast<float*>(arena.take(b.values));
  p.codes = reinterpret_cast<int8_t*>(arena.take(b.codes));
  p.scale = reinterpret_cast<float*>(arena.take(b.scale));
  p.sum16 = reinterpret_cast<int32_t*>(arena.take(b.sum16));
  p.sum32 = reinterpret_cast<int32_t*>(arena.take(b.sum32));
  p.mins = reinterpret_cast<int8_t*>(arena.take(b.mins));
  p.starts = reinterpret_cast<int32_t*>(arena.take(b.starts));
  p.total = reinterpret_cast<int32_t*>(arena.take(b.total));
  return p;
}

// Whether no part needs the sums of sub-blocks.
bool only_i8(const CpuLinear& w) {
  return std::all_of(w.parts.begin(), w.parts.end(), [](const CpuLinear::Part& p) { return p.type == PanelType::I8; });
}

}  // namespace

void CpuBackend::pack(Mat x, const Norm* norm, Mat scratch, const Packed& packed, bool floats, bool quantized,
                      float* padded) {
  const RowNorm row_norm_of = norm ? row_norm(*norm) : RowNorm{};
  run_tasks(pool_, x.rows, std::max<int64_t>(1, kPackGrain / x.cols), [&](int worker, int64_t r) {
    const float* row = x.data + r * x.stride;
    if (norm) {
      float* normed = scratch.data + r * scratch.stride;
      kernels_.norm(row, &row_norm_of, x.cols, normed);
      row = normed;
    }
    if (padded) {
      float* whole = padded + worker * packed.cols;
      std::copy_n(row, x.cols, whole);
      std::fill(whole + x.cols, whole + packed.cols, 0.0f);
      row = whole;
    }
    if (floats) kernels_.pack_floats(row, &packed, r);
    if (quantized) kernels_.pack_quantized(row, &packed, r);
  });
}

void CpuBackend::run_linear(const CpuLinear& w, Mat x, const Norm* norm, Mat scratch, Activation act, Mat residual,
                            Mat y) {
  KE_ASSERT(x.cols == w.in && y.cols == w.out && y.rows == x.rows);
  KE_ASSERT(!residual.data || (residual.rows == y.rows && residual.cols == y.cols));
  KE_ASSERT(!norm || (scratch.rows >= x.rows && scratch.cols == x.cols && fits(*norm, x.cols)));
  if (x.rows == 0) return;
  const int64_t cols = w.packed_in;
  const int block = cols % kBlock == 0 ? kBlock : 32;
  const int tile_cols = kernels_.tile_cols, group_rows = kernels_.panels * kPanelRows;
  const int64_t tiles = tile_count(x.rows, tile_cols);

  int64_t groups = 0;
  for (const CpuLinear::Part& p : w.parts) groups += p.groups;
  const int64_t enough = kTasksPerThread * pool_.threads();
  const int64_t splits = groups >= enough ? 1 : std::min(tiles, (enough + groups - 1) / groups);
  const int64_t products = x.rows * cols * group_rows / splits;
  const int64_t grain = std::max<int64_t>(1, kWorkGrain / std::max<int64_t>(products, 1));

  ArenaPool::Lease arena(arenas_);
  const bool i8 = only_i8(w);
  const PackedBytes bytes = packed_bytes(x.rows, cols, w.floats, w.quantized, i8);
  const size_t scratch_bytes = Arena::padded(kernels_.linear_scratch_bytes);
  const int workers = task_workers(pool_, groups * splits, grain);
  const size_t padded_bytes = cols > x.cols ? pool_.threads() * cols * sizeof(float) : 0;
  arena->reset(bytes.all() + workers * scratch_bytes + Arena::padded(padded_bytes));
  const Packed packed = take_packed(*arena, x.rows, cols, block, bytes, i8);
  uint8_t* kernel_scratch = arena->take(workers * scratch_bytes);

  pack(x, norm, scratch, packed, w.floats, w.quantized,
       padded_bytes > 0 ? reinterpret_cast<float*>(arena->take(padded_bytes)) : nullptr);

  OneRowChoice::Trial trial(one_row_, x.rows == 1 ? w.one_row : nullptr);
  const auto product = x.rows == 1 ? trial.kernel() : kernels_.linear;
  run_tasks(pool_, groups * splits, grain, [&](int worker, int64_t task) {
    int64_t g = task / splits;
    const int64_t split = task % splits;
    const CpuLinear::Part* part = w.parts.data();
    for (; g >= part->groups; ++part) g -= part->groups;
    LinearTask t;
    t.type = part->type;
    t.group = part->data + g * part->group_bytes;
    t.output = g * group_rows;
    t.outputs = part->rows;
    t.x = &packed;
    t.tile_begin = tiles * split / splits;
    t.tile_end = tiles * (split + 1) / splits;
    t.epilogue = {part->bias.floats(), act_of(act),          residual.data ? residual.data + part->first : nullptr,
                  residual.stride,     y.data + part->first, y.stride};
    t.scratch = kernel_scratch + worker * scratch_bytes;
    product(&t);
  });
  trial.done();
}

// The groups of panels that hold the rows asked for, each into memory of its own, from where the columns are picked.
void CpuBackend::norm_linear_rows(Mat x, const Norm& norm, const Linear& linear, std::span<const int32_t> outputs,
                                  Mat scratch, Mat y) {
  const auto& w = static_cast<const CpuLinear&>(linear);
  const int64_t n = static_cast<int64_t>(outputs.size()), group_rows = kernels_.panels * kPanelRows;
  KE_ASSERT(x.cols == w.in && w.packed_in == w.in && y.cols == n && y.rows == x.rows && scratch.rows >= x.rows &&
            scratch.cols == x.cols);
  if (x.rows == 0) return;
  const int workers = task_workers(pool_, n, 1);
  const size_t group_bytes = Arena::padded(x.rows * group_rows * sizeof(float));
  const size_t scratch_bytes = Arena::padded(kernels_.linear_scratch_bytes) + group_bytes;
  ArenaPool::Lease arena(arenas_);
  const bool i8 = only_i8(w);
  const PackedBytes bytes = packed_bytes(x.rows, x.cols, w.floats, w.quantized, i8);
  arena->reset(bytes.all() + workers * scratch_bytes);
  const Packed packed = take_packed(*arena, x.rows, x.cols, x.cols % kBlock == 0 ? kBlock : 32, bytes, i8);
  uint8_t* memory = arena->take(workers * scratch_bytes);
  pack(x, &norm, scratch, packed, w.floats, w.quantized, nullptr);

  const auto group_of = [&](int64_t i) {
    const CpuLinear::Part* part = w.parts.data();
    while (outputs[i] >= part->first + part->rows) ++part;
    return std::pair(part, (outputs[i] - part->first) / group_rows);
  };
  run_tasks(pool_, n, 1, [&](int worker, int64_t task) {
    const auto [part, g] = group_of(task);
    if (task > 0 && group_of(task - 1) == std::pair(part, g)) return;  // whoever has the group's first output does all
    float* group = reinterpret_cast<float*>(memory + worker * scratch_bytes);
    LinearTask t;
    t.type = part->type;
    t.group = part->data + g * part->group_bytes;
    t.output = 0;
    t.outputs = std::min(group_rows, part->rows - g * group_rows);
    t.x = &packed;
    t.tile_begin = 0;
    t.tile_end = tile_count(x.rows, kernels_.tile_cols);
    const float* bias = part->bias.floats();
    t.epilogue = {bias ? bias + g * group_rows : nullptr, Act::None, nullptr, 0, group, group_rows};
    t.scratch = memory + worker * scratch_bytes + group_bytes;
    kernels_.linear(&t);
    for (int64_t i = task; i < n && group_of(i) == std::pair(part, g); ++i)
      for (int64_t r = 0; r < x.rows; ++r)
        y.data[r * y.stride + i] = group[r * group_rows + outputs[i] - part->first - g * group_rows];
  });
}

void CpuBackend::linear(const Linear& w, Mat x, Activation act, Mat residual, Mat y) {
  run_linear(static_cast<const CpuLinear&>(w), x, nullptr, {}, act, residual, y);
}

void CpuBackend::norm_linear(Mat x, const Norm& norm, const Linear& w, Activation act, Mat residual, Mat scratch,
                             Mat y) {
  run_linear(static_cast<const CpuLinear&>(w), x, &norm, scratch, act, residual, y);
}

}  // namespace ke::cpu
