// The language model: a pre-norm decoder with sub-norms before the output projections (Magneto), sinusoidal positions,
// tied embedding and output (transformers modeling_kosmos2.py Kosmos2TextTransformer; KOSMOS-2 paper, section 3.1).
#pragma once
#include <vector>

#include "base/cancel.h"
#include "layers/load.h"
#include "layers/workspace.h"

namespace ke {

struct DecoderShape {
  int64_t width, ff_width, layers, heads, vocab;
  float eps;
  int64_t head_dim() const { return width / heads; }
};

// One position to compute: a token, or a vector that takes the token's embedding's place (an image token).
struct InputRow {
  int32_t id = 0;
  const float* embedding = nullptr;  // (width) on the host, unscaled; nullptr: the embedding of id
  Slot slot;                         // sequence and position
};

class Decoder {
 public:
  Decoder(Backend& backend, Weights& weights, const DecoderShape& shape);

  // Computes all rows (of one or several sequences; a sequence's rows in order of position), storing their keys and
  // values. logits: host (wanted.size(), vocab), for the rows whose indices are in `wanted` (ascending); with outputs
  // (ascending, in 0..vocab - 1) not empty (wanted.size(), outputs.size()), the logits of these tokens alone.
  void forward(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& wanted, float* logits,
               const CancelToken* cancel, std::span<const int32_t> outputs) const;

  // The same, but the device chooses: a token for each wanted row (at least one), by the rule of the same place.
  void choose(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& wanted,
              std::span<const ChoiceRule> rules, std::span<Choice> choices, const CancelToken* cancel) const;

  DType kv_type() const { return kv_type_; }

 private:
  struct Layer {
    LayerNorm attn_norm, attn_sub_norm, ffn_norm, ffn_sub_norm;
    std::unique_ptr<Linear> qkv;          // (3 * width, width)
    std::unique_ptr<Linear> attn_output;  // (width, width)
    std::unique_ptr<Linear> up;           // (ff_width, width)
    std::unique_ptr<Linear> down;         // (width, ff_width)
  };
  void embed(const InputRow& row, float* x) const;
  // Logits on the device: (wanted, outputs, or where these are empty vocab).
  Mat run(Workspace& ws, const std::vector<InputRow>& rows, const std::vector<int32_t>& wanted,
          const CancelToken* cancel, std::span<const int32_t> outputs) const;

  Backend& backend_;
  DecoderShape shape_;
  Tensor token_embd_;               // (vocab, width), stays in the file: only single rows are read
  std::unique_ptr<Linear> output_;  // the same matrix as a product
  LayerNorm output_norm_;
  std::vector<float> frequency_;  // (width / 2)
  std::vector<Layer> layers_;
  DType kv_type_;
};

}  // namespace ke
