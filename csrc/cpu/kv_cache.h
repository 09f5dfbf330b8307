// Keys and values of one sequence, laid out for the attention kernels.
#pragma once
#include <algorithm>

#include "backend/backend.h"
#include "cpu/kernels.h"
#include "cpu/memory.h"

namespace ke::cpu {

// Positions lie in tiles of kKeyTile, the last one as short as the capacity allows. A tile has per layer the keys of
// all heads, [position / 16][dim][16], then their values, [dim / 16][position][16], so that both products of attention
// read panels of 16 lanes straight through, and one more position touches one lane and one vector. Tiles fill one after
// the other: of a large cache only the memory of the tiles in use is ever touched, so that a long answer takes memory
// as it grows, not at its beginning.
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
  // Where one head's panels of a position's tile begin; the position selects the lane (keys) or vector (values).
  uint8_t* keys(int layer, int64_t head, int64_t position = 0) const {
    const int64_t at = position % kKeyTile, value = (head * panel(position) + at / kPanelRows * kPanelRows) * head_dim_;
    return tile_layer(layer, position) + (value + at % kPanelRows) * value_bytes();
  }
  uint8_t* values(int layer, int64_t head, int64_t position = 0) const {
    const int64_t before = heads_ * head_dim_ + head * padded_dim();
    return tile_layer(layer, position) + (before * panel(position) + position % kKeyTile * kPanelRows) * value_bytes();
  }
  // Positions per panel of values in a position's tile.
  int64_t panel(int64_t position) const {
    return std::min<int64_t>(kKeyTile, capacity - position / kKeyTile * kKeyTile);
  }
  KeyTiles tiles(int layer, int64_t head) const {
    const int64_t last = (capacity - 1) / kKeyTile, at = last * kKeyTile;
    return {keys(layer, head),
            values(layer, head),
            kKeyTile * layers * layer_position_bytes(),
            last,
            keys(layer, head, at),
            values(layer, head, at),
            panel(at)};
  }

 private:
  void copy_within_tile(const CpuKvCache& from, int layer, int64_t begin, int64_t end);  // begin < end, of one tile
  CpuKvCache(CpuKvCache&& other) = default;  // leaves `other` without memory
  int64_t value_bytes() const { return half_ ? 2 : 4; }
  int64_t padded_dim() const { return (head_dim_ + kPanelRows - 1) / kPanelRows * kPanelRows; }
  int64_t layer_position_bytes() const { return heads_ * (head_dim_ + padded_dim()) * value_bytes(); }
  uint8_t* tile_layer(int layer, int64_t position) const {
    const int64_t first = position / kKeyTile * kKeyTile;
    return memory_.data() + (first * layers + layer * panel(position)) * layer_position_bytes();
  }
  int64_t heads_, head_dim_;
  bool half_;
  Memory memory_;  // in one piece, so that the system has it back when it is freed
};

}  // namespace ke::cpu
