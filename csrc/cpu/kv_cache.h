// Keys and values of one sequence, laid out for the attention kernels.
#pragma once
#include <algorithm>

#include "backend/backend.h"
#include "cpu/kernels.h"
#include "cpu/kv_codes.h"
#include "cpu/memory.h"

namespace ke::cpu {

// Positions lie in tiles of kKeyTile, the last one as short as the capacity allows. A tile has per layer the keys of
// all heads, [position / 16][dim][16], then their values, [dim / 16][position][16], so that both products of attention
// read panels of 16 lanes straight through, and one more position touches one lane and one vector. A quantized cache
// (Q8_0) has codes there, and behind them the scales, as KvCodes has them. Tiles fill one after the other: of a large
// cache only the memory of the tiles in use is ever touched, so that a long answer takes memory as it grows, not at its
// beginning.
class CpuKvCache final : public KvCache {
 public:
  // type: F32, F16 or Q8_0
  CpuKvCache(int layers, int64_t heads, int64_t head_dim, int64_t capacity, DType type);
  void reserve(int64_t positions);
  bool same_shape(const CpuKvCache& other) const;
  size_t bytes() const override;
  // Positions [begin, end) of one layer; same_shape(from), and both caches hold that many.
  void copy_layer(const CpuKvCache& from, int layer, int64_t begin, int64_t end);

  int64_t heads() const { return heads_; }
  int64_t head_dim() const { return head_dim_; }
  bool half() const { return type_ == DType::F16; }
  bool quantized() const { return type_ == DType::Q8_0; }
  // Where one head's panels of a position's tile begin; the position selects the lane (keys) or vector (values).
  uint8_t* keys(int layer, int64_t head, int64_t position = 0) const {
    return lane(key_array(), layer, head, position);
  }
  uint8_t* values(int layer, int64_t head, int64_t position = 0) const {
    return vector(value_array(), layer, head, position);
  }
  // The same of a quantized cache.
  KvCodes codes(int layer, int64_t head, int64_t position) const {
    return {reinterpret_cast<int8_t*>(keys(layer, head, position)),
            reinterpret_cast<uint16_t*>(lane(key_scale_array(), layer, head, position)),
            reinterpret_cast<int8_t*>(values(layer, head, position)),
            reinterpret_cast<uint16_t*>(vector(value_scale_array(), layer, head, position)), panel(position)};
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
  // One of the arrays of a tile's layer: `rows` panels or vectors of each head.
  struct Array {
    int64_t before;  // bytes of all arrays before it, per position
    int64_t rows;
    int64_t bytes;  // of one position in one row
  };
  Array key_array() const { return {0, head_dim_, value_bytes()}; }
  Array value_array() const { return behind(key_array(), padded_dim() / kPanelRows, kPanelRows * value_bytes()); }
  Array key_scale_array() const { return behind(value_array(), scales(), sizeof(uint16_t)); }
  Array value_scale_array() const { return behind(key_scale_array(), scales(), sizeof(uint16_t)); }
  Array behind(const Array& a, int64_t rows, int64_t bytes) const {
    return {a.before + heads_ * a.rows * a.bytes, rows, bytes};
  }
  // [position / 16][row][16]
  uint8_t* lane(const Array& a, int layer, int64_t head, int64_t position) const {
    const int64_t at = position % kKeyTile;
    return array(a, layer, head, position) + (at / kPanelRows * kPanelRows * a.rows + at % kPanelRows) * a.bytes;
  }
  // [row][position]
  uint8_t* vector(const Array& a, int layer, int64_t head, int64_t position) const {
    return array(a, layer, head, position) + position % kKeyTile * a.bytes;
  }
  uint8_t* array(const Array& a, int layer, int64_t head, int64_t position) const {
    return tile_layer(layer, position) + (a.before + head * a.rows * a.bytes) * panel(position);
  }
  // Of one tile, begin < end.
  void copy_lanes(const Array& a, const CpuKvCache& from, int layer, int64_t begin, int64_t end);
  void copy_vectors(const Array& a, const CpuKvCache& from, int layer, int64_t begin, int64_t end);

  CpuKvCache(CpuKvCache&& other) = default;  // leaves `other` without memory
  int64_t value_bytes() const { return type_ == DType::F32 ? 4 : half() ? 2 : 1; }
  int64_t scales() const { return quantized() ? kv_blocks(head_dim_) : 0; }
  int64_t padded_dim() const { return (head_dim_ + kPanelRows - 1) / kPanelRows * kPanelRows; }
  int64_t layer_position_bytes() const { return behind(value_scale_array(), 0, 0).before; }
  uint8_t* tile_layer(int layer, int64_t position) const {
    const int64_t first = position / kKeyTile * kKeyTile;
    return memory_.data() + (first * layers + layer * panel(position)) * layer_position_bytes();
  }
  int64_t heads_, head_dim_;
  DType type_;
  Memory memory_;  // in one piece, so that the system has it back when it is freed
};

}  // namespace ke::cpu
