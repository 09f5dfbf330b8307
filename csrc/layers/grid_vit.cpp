#include "layers/grid_vit.h"

#include <algorithm>
#include <cmath>

#include "layers/attend.h"

namespace ke {

GridVit::GridVit(Backend& backend, Weights& weights, const GridVitShape& shape)
    : backend_(backend),
      shape_(shape),
      patch_embd_(load_linear(backend, weights, {{"v.patch_embd", shape.block.width}}, shape.patch_values, true)),
      row_embd_(weights.matrix("v.row_embd.weight", shape.table_rows, shape.block.width)),
      col_embd_(weights.matrix("v.col_embd.weight", shape.table_rows, shape.block.width)) {
  for (int64_t i = 0; i < shape.layers; i++) {
    blocks_.emplace_back(backend, weights, shape.block, vision_names(), concat("v.blk.", i, "."),
                         MatmulUse::LargeBatch);
    if (blocks_.back().quantized()) score_type_ = ScoreType::Int8;
  }
  post_ln_ = load_norm(backend, weights, "v.post_ln", shape.block.width, shape.block.norm);
}

// X0 = patches W^T + b + row + column; padding is a patch of zeros at (0, 0)   (Kosmos2_5VisionEmbeddings.forward)
void GridVit::embed(const float* patches, int64_t seen, int64_t grid_cols, int64_t begin, Mat pixels, Mat scratch,
                    Mat x) const {
  const int64_t end = begin + x.rows, given = std::min(end, seen) - begin;
  if (given > 0) backend_.write(patches + begin * shape_.patch_values, pixels.row_range(0, given));
  if (end > seen) {
    const std::vector<float> zeros(static_cast<size_t>(shape_.patch_values), 0.0f);
    backend_.write(zeros.data(), pixels.row_range(given, x.rows));
  }
  backend_.linear(*patch_embd_, pixels, Activation::None, {}, x);
  std::vector<int32_t> row_ids(static_cast<size_t>(x.rows), 0), col_ids(static_cast<size_t>(x.rows), 0);
  for (int64_t i = 0; i < given; i++) {
    row_ids[static_cast<size_t>(i)] = static_cast<int32_t>((begin + i) / grid_cols + 1);
    col_ids[static_cast<size_t>(i)] = static_cast<int32_t>((begin + i) % grid_cols + 1);
  }
  backend_.embed_rows(row_embd_, row_ids, 1.0f, scratch);
  backend_.add(scratch, x);
  backend_.embed_rows(col_embd_, col_ids, 1.0f, scratch);
  backend_.add(scratch, x);
}

Mat GridVit::forward(Workspace& ws, const float* patches, int64_t rows, int64_t cols, const CancelToken* cancel) const {
  const BlockShape& b = shape_.block;
  const int64_t seen = rows * cols, d = b.width, q = b.q_width(), kv = b.kv_width();
  KE_ASSERT(seen > 0 && seen <= shape_.max_patches && rows < shape_.table_rows && cols < shape_.table_rows);
  KE_ASSERT(b.kv_heads == b.heads);
  const int64_t n = seen + (padding(rows, cols) > 0 ? 1 : 0), some = std::min(n, kRowsAtOnce);
  ws.begin();
  Mat x = ws.take(n, d), scratch = ws.take(some, b.scratch_width()), qkv = ws.take(n, b.qkv_width()), a = ws.take(n, q);
  Mat h = ws.take(some, b.hidden_width()), pixels = ws.take(some, shape_.patch_values);
  const float scale = 1.0f / std::sqrt(static_cast<float>(b.head_dim));
  // f(begin, end) for ranges of at most `some` rows, as even as possible.
  const auto in_parts = [&](const auto& f) {
    const int64_t parts = (n + some - 1) / some;
    for (int64_t i = 0; i < parts; i++) {
      if (cancel) cancel->check();
      f(n * i / parts, n * (i + 1) / parts);
    }
  };

  in_parts([&](int64_t begin, int64_t end) {
    embed(patches, seen, cols, begin, pixels.row_range(0, end - begin),
          scratch.row_range(0, end - begin).col_range(0, d), x.row_range(begin, end));
  });
  const Mat keys = qkv.row_range(0, seen);
  for (const Block& block : blocks_) {
    in_parts([&](int64_t begin, int64_t end) {
      block.project(x.row_range(begin, end), scratch.row_range(0, end - begin), qkv.row_range(begin, end));
    });
    attend(backend_, qkv.col_range(0, q), keys.col_range(q, q + kv), keys.col_range(q + kv, q + 2 * kv), b.heads, scale,
           a, score_type_, cancel);
    in_parts([&](int64_t begin, int64_t end) {
      const Mat part = x.row_range(begin, end), space = scratch.row_range(0, end - begin);
      block.add_attention(a.row_range(begin, end), space, part);
      block.add_feed_forward(space, h.row_range(0, end - begin), part);
    });
  }
  backend_.norm(x, post_ln_, x);
  backend_.l2_normalize(x, 1e-12f);
  return x;
}

}  // namespace ke
