#include "layers/decoder.h"

#include <algorithm>

namespace ke {

Decoder::Decoder(Backend& backend, Weights& weights, const DecoderShape& shape, DType kv_type)
    : backend_(backend),
      shape_(shape),
      token_embd_(weights.matrix("token_embd.weight", shape.vocab, shape.block.width)),
      positions_(backend, weights, shape.position, shape.block.width, shape.context),
      kv_type_(kv_type) {
  KE_CHECK(kv_type == DType::F16 || kv_type == DType::Q8_0, InvalidRequest,
           "keys and values are kept as F16 or Q8_0, not ", dtype_info(kv_type).name);
  KE_ASSERT(shape.outputs == 0 || !shape.tied_output);
  const int64_t d = shape.block.width;
  if (shape.segments > 0) segment_embd_ = weights.matrix("segment_embd.weight", shape.segments, d);
  output_ = shape.tied_output ? backend.upload({token_embd_}, nullptr)
                              : load_linear(backend, weights, {{"output", shape.output_rows()}}, d, false);
  weights.release(token_embd_);
  bool floats = true;
  for (int64_t i = 0; i < shape.layers; i++) {
    blocks_.emplace_back(backend, weights, shape.block, decoder_names(), concat("blk.", i, "."));
    floats = floats && !blocks_.back().quantized();
    if (shape.cross.before(i)) cross_.emplace_back(backend, weights, shape.cross, concat("blk.", i, "."));
  }
  if (floats && kv_type == DType::F16) kv_type_ = DType::F32;
  if (shape.final_norm) output_norm_ = load_norm(backend, weights, "output_norm", d, shape.block.norm);
}

std::unique_ptr<KvCache> Decoder::new_cache(int64_t capacity) const {
  const BlockShape& b = shape_.block;
  return backend_.alloc_kv(static_cast<int>(shape_.layers), b.kv_heads, b.head_dim, capacity, kv_type_);
}

std::unique_ptr<CrossMemory> Decoder::new_memory(Mat features) const {
  KE_ASSERT(!cross_.empty() && features.cols == shape_.cross.memory_width);
  const int64_t cols = 2 * shape_.cross.block.kv_width(), layers = static_cast<int64_t>(cross_.size());
  auto memory = std::make_unique<CrossMemory>(backend_.alloc(layers * features.rows * cols), features.rows, cols);
  for (int64_t i = 0; i < layers; i++) cross_[i].project_memory(features, memory->layer(i));
  return memory;
}

void Decoder::look(const CrossBlock& layer, int64_t index, const std::vector<const CrossMemory*>& memories, Mat scratch,
                   Mat q, Mat a, Mat hidden, Mat y, Mat x) const {
  layer.project(x, scratch, q);
  for (int64_t begin = 0, end; begin < x.rows; begin = end) {
    const CrossMemory* memory = memories[begin];
    for (end = begin + 1; end < x.rows && memories[end] == memory;) end++;
    if (!memory) continue;
    layer.add_attention(q.row_range(begin, end), memory->layer(index), a.row_range(begin, end), y.row_range(begin, end),
                        x.row_range(begin, end));
  }
  layer.add_feed_forward(scratch, hidden, y, x);
}

void Decoder::embed(Workspace& ws, const std::vector<InputRow>& rows, Mat x) const {
  embed_inputs(backend_, ws, token_embd_, rows, shape_.embedding_scale, x);
  positions_.add_to(ws, x);
  if (shape_.segments == 0) return;
  ws.ids.clear();
  for (const InputRow& row : rows) ws.ids.push_back(row.segment);
  const Mat vectors = ws.take(x.rows, x.cols);
  backend_.embed_rows(segment_embd_, ws.ids, 1.0f, vectors);
  backend_.add(vectors, x);
}

void Decoder::forward(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows,
                      float* logits, const CancelToken* cancel, std::span<const int32_t> vocab_subset) const {
  const Mat y = run(ws, rows, logit_rows, cancel, vocab_subset);
  if (!logit_rows.empty()) backend_.read(y, logits);
}

void Decoder::sample(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows,
                     std::span<const SamplingRule> rules, std::span<Sampled> sampled, const CancelToken* cancel) const {
  KE_ASSERT(!logit_rows.empty() && rules.size() == logit_rows.size() && sampled.size() == logit_rows.size());
  backend_.sample(run(ws, rows, logit_rows, cancel, {}), rules, sampled);
}

void Decoder::project_output(Mat x, Mat scratch, std::span<const int32_t> vocab_subset, Mat y) const {
  if (shape_.final_norm && !vocab_subset.empty())
    backend_.norm_linear_rows(x, output_norm_, *output_, vocab_subset, scratch, y);
  else if (shape_.final_norm)
    backend_.norm_linear(x, output_norm_, *output_, Activation::None, {}, scratch, y);
  else
    backend_.linear(*output_, x, Activation::None, {}, y);
}

Mat Decoder::run_blocks(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows,
                        const CancelToken* cancel, Mat* last_scratch, int64_t columns, Mat* logits) const {
  const BlockShape& b = shape_.block;
  const int64_t d = b.width, q_width = b.q_width(), kv_width = b.kv_width(), n = static_cast<int64_t>(rows.size());
  const int64_t n_logit_rows = static_cast<int64_t>(logit_rows.size());
  ws.begin();
  ws.kv_positions.clear();
  for (const InputRow& row : rows) ws.kv_positions.push_back(row.position);
  const std::vector<KvPosition>* positions = &ws.kv_positions;
  Mat x = ws.take(n, d), scratch = ws.take(n, b.scratch_width()), qkv = ws.take(n, b.qkv_width()),
      a = ws.take(n, q_width), h = ws.take(n, b.hidden_width());
  embed(ws, rows, x);
  const BlockShape& c = shape_.cross.block;
  Mat cross_q, cross_a, cross_h, cross_y, cross_scratch;
  if (!cross_.empty()) {
    cross_q = ws.take(n, c.q_width()), cross_a = ws.take(n, c.q_width()), cross_h = ws.take(n, c.hidden_width());
    cross_y = ws.take(n, d), cross_scratch = ws.take(n, c.scratch_width());
    ws.memories.clear();
    for (const InputRow& row : rows) ws.memories.push_back(row.memory);
  }
  // Taken before what only some calls need, so that every call has the same memory for it: a device recognises a pass
  // by that.
  if (n_logit_rows > 0 && logits) *logits = ws.take(n_logit_rows, columns);
  int64_t crossed = 0;
  const auto look_on = [&](int64_t rows_left) {
    const auto rows_of = [&](Mat m) { return m.row_range(0, rows_left); };
    look(cross_[crossed], crossed, ws.memories, rows_of(cross_scratch), rows_of(cross_q), rows_of(cross_a),
         rows_of(cross_h), rows_of(cross_y), x);
    crossed++;
  };

  for (size_t i = 0; i < blocks_.size(); i++) {
    if (cancel) cancel->check();
    const int l = static_cast<int>(i);
    const bool looks = shape_.cross.before(l);
    if (looks && !shape_.cross.within) look_on(n);
    blocks_[i].project(x, scratch, qkv);
    positions_.turn(qkv.col_range(0, q_width + kv_width), b.heads + b.kv_heads, *positions);
    const Mat keys = qkv.col_range(q_width, q_width + kv_width);
    backend_.kv_write(keys, qkv.col_range(q_width + kv_width, b.qkv_width()), l, *positions);
    Mat q = qkv.col_range(0, q_width);
    if (i + 1 == blocks_.size() && n_logit_rows < n) {
      // Nobody reads the last block's output of the other rows: go on with the logit rows alone.
      if (n_logit_rows == 0) return {};
      Mat q2 = ws.take(n_logit_rows, q_width), x2 = ws.take(n_logit_rows, d);
      ws.last_kv_positions.clear();
      for (int64_t r = 0; r < n_logit_rows; r++) {
        backend_.copy(q.row_range(logit_rows[r], logit_rows[r] + 1), q2.row_range(r, r + 1));
        backend_.copy(x.row_range(logit_rows[r], logit_rows[r] + 1), x2.row_range(r, r + 1));
        ws.last_kv_positions.push_back(ws.kv_positions[logit_rows[r]]);
        if (!ws.memories.empty()) ws.memories[r] = ws.memories[logit_rows[r]];
      }
      q = q2, x = x2, positions = &ws.last_kv_positions;
      scratch = scratch.row_range(0, n_logit_rows), a = a.row_range(0, n_logit_rows), h = h.row_range(0, n_logit_rows);
    }
    backend_.kv_attention(q, l, b.heads, b.score_scale(), *positions, a, positions_.bias());
    blocks_[i].add_attention(a, scratch, x);
    if (looks && shape_.cross.within) look_on(x.rows);
    if (cancel) cancel->check();
    blocks_[i].add_feed_forward(scratch, h, x);
  }
  *last_scratch = scratch.col_range(0, d);
  return x;
}

Mat Decoder::run(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows,
                 const CancelToken* cancel, std::span<const int32_t> vocab_subset) const {
  // Without a last norm the product of the whole vocabulary is made and columns are picked.
  const bool some = !vocab_subset.empty() && shape_.final_norm;
  const int64_t wanted = static_cast<int64_t>(vocab_subset.size());
  Mat scratch, y;
  const Mat x = run_blocks(ws, rows, logit_rows, cancel, &scratch, some ? wanted : shape_.output_rows(), &y);
  if (logit_rows.empty()) return {};
  project_output(x, scratch, some ? vocab_subset : std::span<const int32_t>{}, y);
  if (vocab_subset.empty() || some) return y;
  Mat picked = ws.take(y.rows, wanted);
  for (size_t i = 0; i < vocab_subset.size(); i++) {
    const int64_t from = vocab_subset[i], to = static_cast<int64_t>(i);
    backend_.copy(y.col_range(from, from + 1), picked.col_range(to, to + 1));
  }
  return picked;
}

void Decoder::forward_states(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows,
                             float* logits, float* states, const CancelToken* cancel) const {
  KE_ASSERT(!logit_rows.empty() && states);
  Mat scratch, y;
  const Mat x = run_blocks(ws, rows, logit_rows, cancel, &scratch, shape_.output_rows(), logits ? &y : nullptr);
  const Mat normed = ws.take(x.rows, x.cols);
  if (shape_.final_norm)
    backend_.norm(x, output_norm_, normed);
  else
    backend_.copy(x, normed);
  if (logits) {
    project_output(x, scratch, {}, y);
    backend_.read(y, logits);
  }
  backend_.read(normed, states);
}

}  // namespace ke
