// Vision features -> a fixed number of image tokens: BLIP-2's Q-Former, a BERT of post-norm blocks over learned
// queries, some of which look at the features; then a linear product (transformers Blip2QFormerModel,
// language_projection).
#pragma once
#include <span>
#include <vector>

#include "layers/block.h"
#include "layers/projector.h"

namespace ke {

struct QformerShape {
  BlockShape block;  // post-norm; feature keys and values have its heads, too
  int64_t layers = 0, queries = 0;
  int64_t cross_every = 2;    // blocks 0, cross_every, ... look at the features
  int64_t feature_width = 0;  // of what the encoder gives
  int64_t width = 0;          // of the rows that come out
  int64_t text_vocab = 0;     // of the tokens that stand beside the queries (InstructBLIP); 0: it reads no text
  int64_t text_positions = 0;
  bool looks(int64_t layer) const { return layer % cross_every == 0; }
};

// mm.query (queries, block width) and mm.query_norm; mm.blk.N.*, as a decoder's; of blocks that look at the features
// mm.blk.N.cross.{attn_q,attn_k,attn_v,attn_output,attn_norm}; the last product, mm.0. One that reads text has
// mm.token_embd.weight, mm.position_embd.weight, and a feed-forward for the text's rows in all blocks but the last,
// mm.blk.N.text.{ffn_up,ffn_down,ffn_norm}.
class Qformer final : public Projector {
 public:
  Qformer(Backend& backend, Weights& weights, const QformerShape& shape);

  int64_t rows(int64_t) const override { return shape_.queries; }
  Mat forward(Workspace& ws, Mat features) const override { return forward_with(ws, features, {}); }
  // The queries see the text's tokens (at most text_positions; none for a Q-Former that reads no text) and these the
  // queries; only queries look at the features and come out.
  Mat forward_with(Workspace& ws, Mat features, std::span<const int32_t> text) const;

 private:
  struct Cross {
    std::unique_ptr<Linear> q, kv, output;  // kv: keys, then values, of features
    LoadedNorm norm;                        // behind the sum
  };
  void attend(Mat q, Mat k, Mat v, Mat out) const;
  void embed(Workspace& ws, std::span<const int32_t> text, Mat x) const;

  Backend& backend_;
  QformerShape shape_;
  Tensor token_embd_, position_embd_;  // of the text, stay in the file: only single rows are read
  LoadedNorm start_norm_;
  std::unique_ptr<Buffer> start_;  // (queries, block width): the normed queries, the same for every image
  std::vector<Block> blocks_;
  std::vector<Cross> cross_;           // of the blocks that look, in order
  std::vector<FeedForward> text_ffn_;  // of all blocks but the last
  std::unique_ptr<Linear> projection_;
};

}  // namespace ke
