#include "layers/text_encoder.h"

namespace ke {

static const char* const kPrefix = "enc.";

TextEncoder::TextEncoder(Backend& backend, Weights& weights, const TextEncoderShape& shape)
    : backend_(backend),
      shape_(shape),
      token_embd_(weights.matrix("token_embd.weight", shape.vocab, shape.block.width)),
      positions_(backend, weights, shape.position, shape.block.width, shape.context, kPrefix) {
  for (int64_t i = 0; i < shape.layers; i++)
    blocks_.emplace_back(backend, weights, shape.block, decoder_names(), concat(kPrefix, "blk.", i, "."));
  output_norm_ = load_norm(backend, weights, concat(kPrefix, "output_norm"), shape.block.width, shape.block.norm);
}

Mat TextEncoder::forward(Workspace& ws, const std::vector<InputRow>& rows, const CancelToken* cancel) const {
  const BlockShape& b = shape_.block;
  const int64_t n = static_cast<int64_t>(rows.size()), q = b.q_width(), kv = b.kv_width();
  KE_ASSERT(n >= 1 && n <= shape_.context);
  ws.begin();
  const Mat x = ws.take(n, b.width), scratch = ws.take(n, b.scratch_width()), qkv = ws.take(n, b.qkv_width()),
            a = ws.take(n, q), h = ws.take(n, b.hidden_width());
  embed_inputs(backend_, ws, token_embd_, rows, 1.0f, x);
  for (const Block& block : blocks_) {
    if (cancel) cancel->check();
    block.project(x, scratch, qkv);
    backend_.attention(qkv.col_range(0, q), qkv.col_range(q, q + kv), qkv.col_range(q + kv, q + 2 * kv), b.heads,
                       b.score_scale(), a, ScoreType::Float, positions_.bias());
    block.add_attention(a, scratch, x);
    if (cancel) cancel->check();
    block.add_feed_forward(scratch, h, x);
  }
  backend_.norm(x, output_norm_, x);
  return x;
}

}  // namespace ke
