// The encoder of an encoder-decoder language model (T5): token embeddings and images' rows through a stack of blocks
// whose rows see each other, both ways, with biases by distance. What comes out is what the decoder looks at.
#pragma once
#include <vector>

#include "base/cancel.h"
#include "layers/block.h"
#include "layers/input.h"
#include "layers/position.h"

namespace ke {

struct TextEncoderShape {
  BlockShape block;
  int64_t layers = 0, vocab = 0, context = 0;  // context: positions
  RelativePositions position;
};

// enc.blk.N.*, as a decoder's blocks (block.h), enc.output_norm, and enc.attn_rel_b of the positions; the embedding is
// the decoder's, token_embd.weight.
class TextEncoder {
 public:
  TextEncoder(Backend& backend, Weights& weights, const TextEncoderShape& shape);

  // Rows at positions 0, 1, ... of one text, at most `context` -> (rows, width), valid until the workspace's next call.
  Mat forward(Workspace& ws, const std::vector<InputRow>& rows, const CancelToken* cancel) const;

 private:
  Backend& backend_;
  TextEncoderShape shape_;
  Tensor token_embd_;  // (vocab, width), stays in the file: only single rows are read
  Positions positions_;
  std::vector<Block> blocks_;
  LoadedNorm output_norm_;
};

}  // namespace ke
