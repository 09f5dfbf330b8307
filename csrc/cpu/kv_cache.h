// Keys and values of one sequence, laid out for the attention kernels.
#pragma once
#include "backend/backend.h"
#include "cpu/kernels.h"
#include "cpu/memory.h"

namespace ke::cpu {

// Per layer and head: keys [position / 16][dim][16], values [dim / 16][position][16], so that both products of
// attention read panels of 16 lanes straight through, and one more position touches one lane and one vector.
class CpuKvCache final : public KvCache {
 public:
  CpuKvCache(int layers, int64_t heads, int64_t head_dim, int64_t capacity, DType type);
  void reserve(int64_t positions);
  bool same_shape(const CpuKvCache& other) const;
  size_t bytes() const override;
  // Positions [begin, end) of one layer; same_shape(from), and both caches hold that many.
  void copy_layer(const CpuKvCache& from, int layer, int64_t begin, int64_t end);

  int64_t heads() const { return heads_; }
  int64_t head_dim() const { return head_dim_; }
  bool half() const { return half_; }
  // Where one head's panels begin; `position` selects the lane (keys) or vector (values).
  uint8_t* keys(int layer, int64_t head, int64_t position = 0) const {
    const int64_t value = (head * capacity + position / kPanelRows * kPanelRows) * head_dim_ + position % kPanelRows;
    return memory_.data() + layer * layer_bytes() + value * value_bytes();
  }
  uint8_t* values(int layer, int64_t head, int64_t position = 0) const {
    return memory_.data() + layer * layer_bytes() + key_bytes() +
           (head * capacity * padded_dim() + position * kPanelRows) * value_bytes();
  }

 private:
  CpuKvCache(CpuKvCache&& other) = default;  // leaves `other` without memory
  int64_t value_bytes() const { return half_ ? 2 : 4; }
  int64_t padded_dim() const { return (head_dim_ + kPanelRows - 1) / kPanelRows * kPanelRows; }
  int64_t key_bytes() const { return heads_ * capacity * head_dim_ * value_bytes(); }  // of a layer
  int64_t layer_bytes() const { return key_bytes() + heads_ * capacity * padded_dim() * value_bytes(); }
  int64_t heads_, head_dim_;
  bool half_;
  Memory memory_;  // layer by layer keys, then values; in one piece, so that the system has it back when it is freed
};

}  // namespace ke::cpu
