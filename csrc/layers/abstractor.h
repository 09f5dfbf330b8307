// Vision features -> a fixed number of image tokens: mPLUG-Owl's visual abstractor, blocks of cross-attention from
// learned queries to themselves and the features, each with a gated feed-forward; then a linear product, and one
// learned row more (MplugOwlVisualAbstractorModel).
#pragma once
#include <vector>

#include "layers/block.h"
#include "layers/projector.h"

namespace ke {

struct AbstractorShape {
  BlockShape block;  // gated, with a norm inside of the feed-forward; its width is that of the features, too
  int64_t layers = 0, queries = 0;
  int64_t width = 0;  // of the rows that come out
};

// mm.query (queries, block width); of every block mm.blk.N.{attn_norm,feature_norm,attn_q,attn_k,attn_v,attn_output}
// and a decoder's feed-forward with ffn_gate and ffn_sub_norm; the last product, mm.0, and mm.end (width), the row
// behind it.
class Abstractor final : public Projector {
 public:
  Abstractor(Backend& backend, Weights& weights, const AbstractorShape& shape);

  int64_t rows(int64_t) const override { return shape_.queries + 1; }
  Mat forward(Workspace& ws, Mat features) const override;

 private:
  struct Layer {
    LoadedNorm query_norm, feature_norm;
    std::unique_ptr<Linear> q, kv, output;  // kv: keys, then values
    FeedForward ffn;
  };

  Backend& backend_;
  AbstractorShape shape_;
  std::unique_ptr<Buffer> queries_, end_;
  std::vector<Layer> layers_;
  std::unique_ptr<Linear> projection_;
};

}  // namespace ke
