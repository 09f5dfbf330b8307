// The language model: token embeddings, positions, a stack of causal blocks over a cache of keys and values, an output
// product. Its shape says which of the usual parts it has (blk.N.* are the blocks' tensors, see block.h).
#pragma once
#include <vector>

#include "base/cancel.h"
#include "layers/block.h"
#include "layers/cross.h"
#include "layers/input.h"
#include "layers/load.h"
#include "layers/position.h"
#include "layers/workspace.h"

namespace ke {

struct DecoderShape {
  BlockShape block;
  int64_t layers = 0, vocab = 0, context = 0;  // context: positions
  float embedding_scale = 1;                   // of token and image rows
  PositionShape position;
  int64_t segments = 0;     // rows of segment_embd.weight, of which each position adds one, unscaled; 0: no segments
  CrossShape cross;         // of layers that look at images' features or at an encoder's rows; none by default
  bool final_norm = true;   // output_norm
  bool tied_output = true;  // token_embd is the output product's matrix, too; else output.weight, without bias
  int64_t outputs = 0;      // of the output product where it gives no logits of tokens but, say, an embedding; 0: vocab
  int64_t output_rows() const { return outputs > 0 ? outputs : vocab; }
};

// What rows may look at: keys and values of an image, or of what an encoder read, for every cross-attention layer, on
// the device. Made once.
class CrossMemory {
 public:
  CrossMemory(std::unique_ptr<Buffer> buffer, int64_t rows, int64_t cols)
      : buffer_(std::move(buffer)), rows_(rows), cols_(cols) {}
  int64_t rows() const { return rows_; }
  size_t bytes() const { return static_cast<size_t>(buffer_->count) * sizeof(float); }
  Mat layer(int64_t i) const { return Mat(*buffer_, (i + 1) * rows_, cols_).row_range(i * rows_, (i + 1) * rows_); }

 private:
  std::unique_ptr<Buffer> buffer_;  // (layers, rows, cols)
  int64_t rows_, cols_;
};

class Decoder {
 public:
  // kv_type: of its caches, F16 or Q8_0. F16 gives files whose blocks' matrices are all floats the reference's float32
  // keys and values; the error of a file with quantized ones is far above float16's.
  Decoder(Backend& backend, Weights& weights, const DecoderShape& shape, DType kv_type = DType::F16);

  // Computes all rows (of one or several sequences; a sequence's rows in order of position), storing their keys and
  // values. logits: host (logit_rows.size(), vocab), for the rows whose indices are in `logit_rows` (ascending); with
  // vocab_subset (ascending, in 0..vocab - 1) not empty (logit_rows.size(), vocab_subset.size()), the logits of these
  // tokens alone.
  void forward(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows, float* logits,
               const CancelToken* cancel, std::span<const int32_t> vocab_subset) const;

  // The same for the whole vocabulary, and of the same rows what the output product takes: the last layer's hidden
  // states behind the last norm, host (logit_rows.size(), width). logits may be nullptr: none are made.
  void forward_states(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows,
                      float* logits, float* states, const CancelToken* cancel) const;

  // The same as forward, but the device samples: a token for each logit row (at least one), by the rule of the same
  // index.
  void sample(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows,
              std::span<const SamplingRule> rules, std::span<Sampled> sampled, const CancelToken* cancel) const;

  // An empty cache for one sequence.
  std::unique_ptr<KvCache> new_cache(int64_t capacity) const;
  DType kv_type() const { return kv_type_; }  // F32, F16 or Q8_0

  // Of features (n, cross.memory_width) on the device, of a decoder with cross-attention layers.
  std::unique_ptr<CrossMemory> new_memory(Mat features) const;

 private:
  // x (rows, width): embeddings times their scale, plus positions.
  void embed(Workspace& ws, const std::vector<InputRow>& rows, Mat x) const;
  // The cross-attention layer of a block. Row r of x looks at memories[r]; neighbouring rows with one memory go
  // together, so no mask is needed.
  void look(const CrossBlock& layer, int64_t index, const std::vector<const CrossMemory*>& memories, Mat scratch, Mat q,
            Mat a, Mat hidden, Mat y, Mat x) const;
  // The blocks: what comes out of the last one for the logit rows, on the device; `scratch` becomes memory for their
  // norm, and `logits`, where it is not nullptr, that of the logits, (logit rows, columns).
  Mat run_blocks(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows,
                 const CancelToken* cancel, Mat* scratch, int64_t columns, Mat* logits) const;
  // Logits on the device: (logit rows, vocab_subset, or where that is empty vocab).
  Mat run(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& logit_rows,
          const CancelToken* cancel, std::span<const int32_t> vocab_subset) const;
  void project_output(Mat x, Mat scratch, std::span<const int32_t> vocab_subset, Mat y) const;

  Backend& backend_;
  DecoderShape shape_;
  Tensor token_embd_;               // (vocab, width), stays in the file: only single rows are read
  std::unique_ptr<Linear> output_;  // (vocab, width)
  LoadedNorm output_norm_;
  Tensor segment_embd_;  // (segments, width), stays in the file
  Positions positions_;
  std::vector<Block> blocks_;
  std::vector<CrossBlock> cross_;
  DType kv_type_;
};

}  // namespace ke
