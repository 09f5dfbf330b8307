#include "layers/grid_vit.h"

#include <cmath>

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

void GridVit::add_table(const Tensor& table, const std::vector<int32_t>& ids, Mat scratch, Mat x) const {
  backend_.embed_rows(table, ids, 1.0f, scratch);
  backend_.add(scratch, x);
}

Mat GridVit::forward(Workspace& ws, const float* patches, int64_t rows, int64_t cols, const CancelToken* cancel) const {
  const BlockShape& b = shape_.block;
  const int64_t seen = rows * cols, d = b.width, q = b.q_width(), kv = b.kv_width();
  KE_ASSERT(seen > 0 && seen <= shape_.max_patches && rows < shape_.table_rows && cols < shape_.table_rows);
  const int64_t n = seen + (padding(rows, cols) > 0 ? 1 : 0);
  ws.begin();
  Mat x = ws.take(n, d), scratch = ws.take(n, b.scratch_width()), qkv = ws.take(n, b.qkv_width()), a = ws.take(n, q);
  Mat h = ws.take(n, b.hidden_width()), pixels = ws.take(n, shape_.patch_values);
  const float scale = 1.0f / std::sqrt(static_cast<float>(b.head_dim));

  // X0 = patches W^T + b + row + column; padding is a patch of zeros at (0, 0)   (Kosmos2_5VisionEmbeddings.forward)
  backend_.write(patches, pixels.row_range(0, seen));
  std::vector<int32_t> row_ids(static_cast<size_t>(n), 0), col_ids(static_cast<size_t>(n), 0);
  for (int64_t i = 0; i < seen; i++) {
    row_ids[static_cast<size_t>(i)] = static_cast<int32_t>(i / cols + 1);
    col_ids[static_cast<size_t>(i)] = static_cast<int32_t>(i % cols + 1);
  }
  if (n > seen) {
    const std::vector<float> zeros(static_cast<size_t>(shape_.patch_values), 0.0f);
    backend_.write(zeros.data(), pixels.row_range(seen, n));
  }
  backend_.linear(*patch_embd_, pixels, Activation::None, {}, x);
  add_table(row_embd_, row_ids, scratch.col_range(0, d), x);
  add_table(col_embd_, col_ids, scratch.col_range(0, d), x);

  const Mat keys = qkv.row_range(0, seen);
  for (const Block& block : blocks_) {
    if (cancel) cancel->check();
    block.project(x, scratch, qkv);
    backend_.attention(qkv.col_range(0, q), keys.col_range(q, q + kv), keys.col_range(q + kv, q + 2 * kv), b.heads,
                       scale, a, score_type_);
    block.add_attention(a, scratch, x);
    if (cancel) cancel->check();
    block.add_feed_forward(scratch, h, x);
  }
  backend_.norm(x, post_ln_, x);
  backend_.l2_normalize(x, 1e-12f);
  return x;
}

}  // namespace ke
