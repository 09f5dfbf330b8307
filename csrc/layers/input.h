// What a stack of a language model computes: one row per position, and how the rows begin.
#pragma once
#include <vector>

#include "backend/backend.h"
#include "layers/workspace.h"

namespace ke {

class CrossMemory;  // layers/decoder.h

// One position to compute: a token, or a vector that takes the token's embedding's place (an image row). Vectors are
// (width), unscaled.
struct InputRow {
  int32_t id = 0;
  const float* embedding = nullptr;         // on the host; nullptr: use device_embedding
  KvPosition position;                      // sequence and position
  const float* device_embedding = nullptr;  // in the backend's memory; nullptr, too: the embedding of id
  int32_t segment = 0;                      // of the decoder's segments
  const CrossMemory* memory = nullptr;      // what the row attends to, if the decoder has such layers; or nullptr
};

// x (rows, width) = the rows' vectors, tokens' from table (vocab, width), times `scale`.
void embed_inputs(Backend& backend, Workspace& ws, const Tensor& table, const std::vector<InputRow>& rows, float scale,
                  Mat x);

}  // namespace ke
