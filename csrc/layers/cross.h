// Cross-attention. Gated, as Flamingo puts it in front of some of a language model's blocks: rows look at an image's
// features; the attention's output and a separate feed-forward are added, each times the tanh of a learned gate. Or
// within each block, as encoder-decoders have it (T5): the attention's output is added behind the block's own
// attention.
#pragma once
#include <memory>
#include <string>

#include "layers/block.h"
#include "layers/workspace.h"

namespace ke {

struct CrossShape {
  int64_t every = 0, first = 0;  // before blocks first, first + every, ...; every 0: none
  int64_t memory_width = 0;      // of an image's features
  bool head_norms = false;       // norms of each head's queries and keys, with the block's kind and epsilon
  BlockShape block;              // heads, feed-forward, norms and biases; always pre-norm
  bool within = false;           // within these blocks, without gates and a feed-forward of its own
  bool before(int64_t i) const { return every > 0 && i >= first && (i - first) % every == 0; }
};

// One such layer: cross.attn_norm, cross.attn_q ... after the prefix of the block that it precedes. The gates are
// cross.attn_alpha and cross.ffn_alpha, (1) each.
class CrossBlock {
 public:
  CrossBlock(Backend& backend, Weights& weights, const CrossShape& shape, const std::string& prefix);

  // The keys, then the values of features (n, memory_width): kv (n, 2 * kv_width). They are the same for every row that
  // attends to this image, so they are computed once.
  void project_memory(Mat features, Mat kv) const;
  // q (n, q_width) of rows x (n, width). scratch: (n, scratch_width).
  void project(Mat x, Mat scratch, Mat q) const;
  // x += tanh(gate) output product of the attention of q to kv. a: (n, q_width), y: (n, width), untouched without gate.
  void add_attention(Mat q, Mat kv, Mat a, Mat y, Mat x) const;
  // x += tanh(gate) feed-forward of x, if it has one. hidden: (n, hidden_width), y: (n, width).
  void add_feed_forward(Mat scratch, Mat hidden, Mat y, Mat x) const;

 private:
  Mat heads_of(Mat x, int64_t heads) const;

  Backend& backend_;
  CrossShape shape_;
  LoadedNorm attn_norm_, q_norm_, k_norm_;
  std::unique_ptr<Linear> q_, k_, v_, output_;
  FeedForward ffn_;
  float attn_gate_ = 0, ffn_gate_ = 0;
};

}  // namespace ke
