// Shapes of parts that several published models have, from the numbers in their files.
#pragma once
#include "layers/decoder.h"
#include "layers/vit.h"
#include "models/schema_groups.h"

namespace ke {

// A block of layer norms and biases whose heads have keys and values of their own.
BlockShape plain_block(int64_t width, int64_t ff_width, int64_t heads, float eps);

// A tower of v.kind: all of its blocks, and the last norm on every token.
VitShape vision_tower(const VisionConfig& v);
// Its patches in the hidden state that transformers calls `layer` (-1: behind the last block, -2:
// in front of it), without the last norm: what LLaVA and its kin look at.
VitShape tower_patches(const VisionConfig& v, int64_t layer);

// LLaMA's decoder: RMS norms, rotary positions (halves of a head are pairs), SwiGLU, no biases; or Qwen2's, which has
// those of queries, keys and values.
DecoderShape rotary_decoder(const DecoderConfig& d);

// OPT's: layer norms before the products, learned positions whose table begins with two rows of no position, ReLU, the
// embedding as output matrix.
DecoderShape opt_decoder(const DecoderConfig& d);

}  // namespace ke
