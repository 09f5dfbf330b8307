#include "layers/decoder.h"

#include <algorithm>
#include <cmath>

#include "quant/codec.h"

namespace ke {

Decoder::Decoder(Backend& backend, Weights& weights, const DecoderShape& shape) : backend_(backend), shape_(shape) {
  const int64_t d = shape.width, ff = shape.ff_width;
  token_embd_ = weights.matrix("token_embd.weight", shape.vocab, d);
  output_ = backend.upload({token_embd_}, nullptr);
  weights.release(token_embd_);
  for (int64_t i = 0; i < shape.layers; i++) {
    const std::string n = concat("blk.", i, ".");
    Layer layer;
    layer.attn_norm = load_norm(backend, weights, n + "attn_norm", d, shape.eps);
    layer.qkv = load_linear(backend, weights, {n + "attn_q", n + "attn_k", n + "attn_v"}, d, d);
    layer.attn_sub_norm = load_norm(backend, weights, n + "attn_sub_norm", d, shape.eps);
    layer.attn_output = load_linear(backend, weights, {n + "attn_output"}, d, d);
    layer.ffn_norm = load_norm(backend, weights, n + "ffn_norm", d, shape.eps);
    layer.up = load_linear(backend, weights, {n + "ffn_up"}, ff, d);
    layer.ffn_sub_norm = load_norm(backend, weights, n + "ffn_sub_norm", ff, shape.eps);
    layer.down = load_linear(backend, weights, {n + "ffn_down"}, d, ff);
    layers_.push_back(std::move(layer));
  }
  output_norm_ = load_norm(backend, weights, "output_norm", d, shape.eps);

  // Float files are held to the reference's float32 cache; a quantized file's own error is far above float16's.
  const DType stored = weights.matrix("blk.0.attn_k.weight", d, d).dtype;
  kv_type_ = dtype_info(stored).block_elems == 1 ? DType::F32 : DType::F16;

  // f_i = exp(-i ln(10000) / (d/2 - 1)), in float32 as the reference computes it
  // (Kosmos2TextSinusoidalPositionalEmbedding.get_embedding).
  const int64_t half = d / 2;
  const float step = static_cast<float>(-(std::log(10000.0) / static_cast<double>(half - 1)));
  for (int64_t i = 0; i < half; i++) frequency_.push_back(std::exp(static_cast<float>(i) * step));
}

// x = sqrt(d) E + PE[2 + pos], PE[p] = [sin(p f), cos(p f)]; image vectors are scaled like token embeddings.
void Decoder::embed(const InputRow& row, float* x) const {
  const int64_t d = shape_.width, half = d / 2;
  if (row.embedding) {
    std::copy_n(row.embedding, d, x);
  } else {
    const size_t row_bytes = token_embd_.bytes / static_cast<size_t>(shape_.vocab);
    decode(token_embd_.dtype, token_embd_.data + row_bytes * static_cast<size_t>(row.id), x, d);
  }
  const float scale = std::sqrt(static_cast<float>(d)), p = static_cast<float>(row.slot.pos + 2);
  for (int64_t i = 0; i < half; i++) {
    const float angle = p * frequency_[i];
    x[i] = x[i] * scale + std::sin(angle);
    x[half + i] = x[half + i] * scale + std::cos(angle);
  }
}

void Decoder::forward(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& wanted,
                      float* logits, const CancelToken* cancel, std::span<const int32_t> outputs) const {
  const Mat y = run(ws, rows, wanted, cancel, outputs);
  if (!wanted.empty()) backend_.read(y, logits);
}

void Decoder::choose(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& wanted,
                     std::span<const ChoiceRule> rules, std::span<Choice> choices, const CancelToken* cancel) const {
  KE_ASSERT(!wanted.empty() && rules.size() == wanted.size() && choices.size() == wanted.size());
  backend_.choose(run(ws, rows, wanted, cancel, {}), rules, choices);
}

Mat Decoder::run(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& wanted,
                 const CancelToken* cancel, std::span<const int32_t> outputs) const {
  const int64_t d = shape_.width, ff = shape_.ff_width, n = static_cast<int64_t>(rows.size());
  const int64_t n_wanted = static_cast<int64_t>(wanted.size());
  const float scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim()));
  ws.embedded.resize(n * d);
  ws.slots.clear();
  for (int64_t r = 0; r < n; r++) {
    embed(rows[r], ws.embedded.data() + r * d);
    ws.slots.push_back(rows[r].slot);
  }
  const std::vector<Slot>* slots = &ws.slots;
  Mat x = ws.mat(0, n, d), scratch = ws.mat(1, n, std::max(d, ff)), qkv = ws.mat(2, n, 3 * d), a = ws.mat(3, n, d),
      h = ws.mat(4, n, ff);
  backend_.write(ws.embedded.data(), x);

  for (size_t i = 0; i < layers_.size(); i++) {  // Kosmos2TextBlock.forward
    if (cancel) cancel->check();
    const Layer& layer = layers_[i];
    const int l = static_cast<int>(i);
    backend_.norm_linear(x, layer.attn_norm, *layer.qkv, Activation::None, {}, scratch.col_range(0, d), qkv);
    backend_.kv_write(qkv.col_range(d, 2 * d), qkv.col_range(2 * d, 3 * d), l, *slots);
    Mat q = qkv.col_range(0, d);
    if (i + 1 == layers_.size() && n_wanted < n) {
      // Nobody reads the last layer's output of the other rows: go on with the wanted ones alone.
      if (n_wanted == 0) return {};
      Mat q2 = ws.mat(5, n_wanted, d), x2 = ws.mat(6, n_wanted, d);
      ws.last_slots.clear();
      for (int64_t r = 0; r < n_wanted; r++) {
        backend_.copy(q.row_range(wanted[r], wanted[r] + 1), q2.row_range(r, r + 1));
        backend_.copy(x.row_range(wanted[r], wanted[r] + 1), x2.row_range(r, r + 1));
        ws.last_slots.push_back(ws.slots[wanted[r]]);
      }
      q = q2, x = x2, slots = &ws.last_slots;
      scratch = scratch.row_range(0, n_wanted), a = a.row_range(0, n_wanted), h = h.row_range(0, n_wanted);
    }
    backend_.kv_attention(q, l, shape_.heads, scale, *slots, a);
    // The norm over all heads comes before the output projection.
    backend_.norm_linear(a, layer.attn_sub_norm, *layer.attn_output, Activation::None, x, scratch.col_range(0, d), x);
    if (cancel) cancel->check();
    backend_.norm_linear(x, layer.ffn_norm, *layer.up, Activation::GeluErf, {}, scratch.col_range(0, d), h);
    backend_.norm_linear(h, layer.ffn_sub_norm, *layer.down, Activation::None, x, scratch.col_range(0, ff), x);
  }
  Mat y = ws.mat(7, n_wanted, outputs.empty() ? shape_.vocab : static_cast<int64_t>(outputs.size()));
  if (outputs.empty())
    backend_.norm_linear(x, output_norm_, *output_, Activation::None, {}, scratch.col_range(0, d), y);
  else
    backend_.norm_linear_rows(x, output_norm_, *output_, outputs, scratch.col_range(0, d), y);
  return y;
}

}  // namespace ke
