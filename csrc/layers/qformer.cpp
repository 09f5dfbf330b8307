#include "layers/qformer.h"

#include <cmath>

namespace ke {

Qformer::Qformer(Backend& backend, Weights& weights, const QformerShape& shape) : backend_(backend), shape_(shape) {
  const BlockShape& b = shape.block;
  const int64_t d = b.width;
  KE_ASSERT(b.post_norm && b.bias && b.kv_heads == b.heads && b.q_width() == d && shape.cross_every > 0);
  start_ = load_floats(backend, weights.floats("mm.query", {shape.queries, d}), shape.queries, d);
  start_norm_ = load_norm(backend, weights, "mm.query_norm", d, b.norm);
  const Mat start(*start_, shape.queries, d);
  backend.norm(start, start_norm_, start);
  if (shape.text_vocab > 0) {
    token_embd_ = weights.matrix("mm.token_embd.weight", shape.text_vocab, d);
    position_embd_ = weights.matrix("mm.position_embd.weight", shape.text_positions, d);
  }
  for (int64_t i = 0; i < shape.layers; i++) {
    const std::string prefix = concat("mm.blk.", i, ".");
    blocks_.emplace_back(backend, weights, b, decoder_names(), prefix);
    if (shape.text_vocab > 0 && i + 1 < shape.layers)
      text_ffn_.emplace_back(backend, weights, b, prefix + "text.", "ffn_norm", MatmulUse::Any, nullptr);
    if (!shape.looks(i)) continue;
    const std::string n = prefix + "cross.";
    Cross c;
    c.q = load_linear(backend, weights, {{n + "attn_q", d}}, d, true);
    c.kv = load_linear(backend, weights, {{n + "attn_k", d}, {n + "attn_v", d}}, shape.feature_width, true);
    c.output = load_linear(backend, weights, {{n + "attn_output", d}}, d, true);
    c.norm = load_norm(backend, weights, n + "attn_norm", d, b.norm);
    cross_.push_back(std::move(c));
  }
  projection_ = load_linear(backend, weights, {{"mm.0", shape.width}}, d, true);
}

void Qformer::attend(Mat q, Mat k, Mat v, Mat out) const {
  const float scale = 1.0f / std::sqrt(static_cast<float>(shape_.block.head_dim));
  backend_.attention(q, k, v, shape_.block.heads, scale, out);
}

// x (tokens, width): normed sums of the tokens' and the positions' vectors, counted from the first token.
void Qformer::embed(Workspace& ws, std::span<const int32_t> text, Mat x) const {
  KE_ASSERT(static_cast<int64_t>(text.size()) <= shape_.text_positions);
  for (const int32_t id : text) KE_ASSERT(id >= 0 && id < shape_.text_vocab);
  const Mat positions = ws.take(x.rows, x.cols);
  backend_.embed_rows(token_embd_, text, 1.0f, x);
  ws.ids.clear();
  for (int64_t i = 0; i < x.rows; i++) ws.ids.push_back(static_cast<int32_t>(i));
  backend_.embed_rows(position_embd_, ws.ids, 1.0f, positions);
  backend_.add(positions, x);
  backend_.norm(x, start_norm_, x);
}

Mat Qformer::forward_with(Workspace& ws, Mat features, std::span<const int32_t> text) const {
  const BlockShape& b = shape_.block;
  const int64_t queries = shape_.queries, n = queries + static_cast<int64_t>(text.size()), d = b.width;
  const Mat whole = ws.take(n, d), scratch = ws.take(n, b.scratch_width()), qkv = ws.take(n, b.qkv_width());
  const Mat a = ws.take(n, d), h = ws.take(n, b.hidden_width()), kv = ws.take(features.rows, 2 * d);
  const auto of_queries = [&](Mat m) { return m.row_range(0, queries); };
  const auto of_text = [&](Mat m) { return m.row_range(queries, n); };
  const Mat x = of_queries(whole);
  backend_.copy(Mat(*start_, queries, d), x);
  if (!text.empty()) embed(ws, text, of_text(whole));
  size_t crossed = 0;
  for (size_t i = 0; i < blocks_.size(); i++) {
    blocks_[i].project(whole, scratch, qkv);
    const int64_t go_on = i + 1 < blocks_.size() ? n : queries;  // nobody reads the text's rows of the last block
    const auto rows = [&](Mat m) { return m.row_range(0, go_on); };
    attend(rows(qkv.col_range(0, d)), qkv.col_range(d, 2 * d), qkv.col_range(2 * d, 3 * d), rows(a));
    blocks_[i].add_attention(rows(a), rows(scratch), rows(whole));
    if (shape_.looks(static_cast<int64_t>(i))) {
      const Cross& c = cross_[crossed++];
      const Mat q = of_queries(qkv.col_range(0, d));
      backend_.linear(*c.q, x, Activation::None, {}, q);
      backend_.linear(*c.kv, features, Activation::None, {}, kv);
      attend(q, kv.col_range(0, d), kv.col_range(d, 2 * d), of_queries(a));
      backend_.linear(*c.output, of_queries(a), Activation::None, x, x);
      backend_.norm(x, c.norm, x);
    }
    blocks_[i].add_feed_forward(of_queries(scratch), of_queries(h), x);
    if (go_on > queries)
      text_ffn_[i].run(backend_, of_text(whole), of_text(scratch), of_text(h), of_text(whole), of_text(whole));
  }
  const Mat y = ws.take(queries, shape_.width);
  backend_.linear(*projection_, x, Activation::None, {}, y);
  return y;
}

}  // namespace ke
