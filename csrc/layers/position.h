// Position encodings of a decoder's rows: vectors added to the embeddings (sinusoids, learned ones), rotations of
// queries and keys, slopes of the scores, or nothing.
#pragma once
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "layers/load.h"
#include "layers/workspace.h"

namespace ke {

struct NoPositions {};
// PE[offset + p] is added, PE[p] = [sin(p f), cos(p f)], f_i = 10000^(-i / (width / 2 - 1)).
struct SinusoidPositions {
  int64_t offset = 0;
};
// Row offset + p of position_embd.weight (offset + context, width) is added.
struct LearnedPositions {
  int64_t offset = 0;
};
// The first `dims` values of each query and key are turned by (p / scale) base^(-2 i / dims). See Rope.
struct RopePositions {
  float base = 10000;
  int64_t dims = 0;
  bool interleaved = false;
  float scale = 1;
};
// A score grows by a learned bias of its head and of how far the key stands from the query (T5): attn_rel_b.weight
// (buckets, heads). Near distances have a bucket each, farther ones share buckets whose width grows, all from
// max_distance on the last; both_ways: half of the buckets are for keys behind the query.
struct RelativePositions {
  int64_t buckets = 32, max_distance = 128, heads = 0;
  bool both_ways = false;
};
// Scores fall with the distance of a key, by a slope per head (ALiBi): powers of 2^(-most / heads), `heads` being
// rounded up to a power of two; then every second of them first, as MPT orders them.
struct AlibiPositions {
  int64_t heads = 0;
  float most = 8;  // the steepest head's exponent is most / heads, the flattest's `most`
};
using PositionShape =
    std::variant<NoPositions, SinusoidPositions, LearnedPositions, RopePositions, RelativePositions, AlibiPositions>;

// The bucket of a key that stands `distance` positions behind the query (before it: negative), as transformers'
// T5Attention chooses it, rounding included.
int64_t relative_bucket(const RelativePositions& shape, int64_t distance);

// (positions, dims): the cosines, then the sines of each position's angles, in float32 as transformers'
// LlamaRotaryEmbedding computes them.
std::vector<float> rope_table(const RopePositions& shape, int64_t positions);

// One per head.
std::vector<float> alibi_slopes(const AlibiPositions& shape);

class Positions {
 public:
  // prefix: of the tensors' names.
  Positions(Backend& backend, Weights& weights, const PositionShape& shape, int64_t width, int64_t context,
            const std::string& prefix = "");

  // x (rows, width) += the vectors of ws.kv_positions' positions, if there are any.
  void add_to(Workspace& ws, Mat x) const;
  // Turns what lies side by side in qk (rows, heads * head_dim), row r at positions[r], where positions are rotary.
  void turn(Mat qk, int64_t heads, const std::vector<KvPosition>& positions) const;
  // What attention adds to scores; nothing unless positions are relative or ALiBi's.
  const RelativeBias& bias() const { return bias_; }

 private:
  // value(head, distance): distance of the key from the query, negative before it.
  void set_bias(int64_t heads, int64_t context, bool both_ways, const std::function<float(int64_t, int64_t)>& value);

  Backend& backend_;
  PositionShape shape_;
  std::vector<float> frequency_;   // of sinusoids (width / 2)
  Tensor learned_;                 // stays in the file: only single rows are read
  std::unique_ptr<Buffer> table_;  // of Rope, or of the bias
  RelativeBias bias_;
};

}  // namespace ke
