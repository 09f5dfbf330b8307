#include "cpu/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace ke::cpu {

CpuKvCache::CpuKvCache(int n_layers, int64_t heads, int64_t head_dim, int64_t positions, DType type)
    : heads_(heads), head_dim_(head_dim), type_(type) {
  KE_CHECK(type == DType::F32 || type == DType::F16 || type == DType::Q8_0, InvalidRequest,
           "a KV cache holds F32, F16 or Q8_0 values, not ", dtype_info(type).name);
  KE_CHECK(n_layers > 0 && heads > 0 && head_dim > 0 && head_dim <= kMaxHeadDim && positions >= 0, InvalidRequest,
           "KV cache of ", n_layers, " layers, ", heads, " heads of ", head_dim, ", ", positions, " positions");
  layers = n_layers;
  width = heads * head_dim;
  reserve(positions);
}

void CpuKvCache::reserve(int64_t positions) {
  if (positions <= capacity) return;
  KE_CHECK(positions <= int64_t{1} << 31, OutOfMemory, "a KV cache of ", positions, " positions");
  const int64_t grown = (positions + kPanelRows - 1) / kPanelRows * kPanelRows;
  // Before anything is replaced: a failure leaves the cache as it was.
  Memory memory(static_cast<size_t>(layer_position_bytes()) * static_cast<size_t>(grown) * static_cast<size_t>(layers));
  const CpuKvCache old(std::move(*this));
  memory_ = std::move(memory);
  capacity = grown;
  for (int l = 0; l < layers; ++l) copy_layer(old, l, 0, old.capacity);
}

bool CpuKvCache::same_shape(const CpuKvCache& other) const {
  return layers == other.layers && heads_ == other.heads_ && head_dim_ == other.head_dim_ && type_ == other.type_;
}

size_t CpuKvCache::bytes() const { return memory_.size(); }

void CpuKvCache::copy_layer(const CpuKvCache& from, int layer, int64_t begin, int64_t end) {
  for (int64_t next; begin < end; begin = next) {
    next = std::min(end, (begin / kKeyTile + 1) * kKeyTile);
    copy_lanes(key_array(), from, layer, begin, next);
    copy_vectors(value_array(), from, layer, begin, next);
    if (!quantized()) continue;
    copy_lanes(key_scale_array(), from, layer, begin, next);
    copy_vectors(value_scale_array(), from, layer, begin, next);
  }
}

void CpuKvCache::copy_lanes(const Array& a, const CpuKvCache& from, int layer, int64_t begin, int64_t end) {
  // Whole panels from the first that begins at or behind `begin`; the lanes before it one by one.
  const int64_t whole = (begin + kPanelRows - 1) / kPanelRows * kPanelRows;
  const int64_t last = (end + kPanelRows - 1) / kPanelRows * kPanelRows;
  const int64_t lanes = std::min(whole, last) - begin, step = kPanelRows * a.bytes;
  for (int64_t h = 0; h < heads_; ++h) {
    if (lanes > 0)
      for (int64_t i = 0; i < a.rows; ++i)
        std::memcpy(lane(a, layer, h, begin) + i * step, from.lane(a, layer, h, begin) + i * step, lanes * a.bytes);
    if (last > whole)
      std::memcpy(lane(a, layer, h, whole), from.lane(a, layer, h, whole), (last - whole) * a.rows * a.bytes);
  }
}

void CpuKvCache::copy_vectors(const Array& a, const CpuKvCache& from, int layer, int64_t begin, int64_t end) {
  for (int64_t h = 0; h < heads_; ++h)
    for (int64_t i = 0; i < a.rows; ++i)
      std::memcpy(vector(a, layer, h, begin) + i * panel(begin) * a.bytes,
                  from.vector(a, layer, h, begin) + i * from.panel(begin) * a.bytes, (end - begin) * a.bytes);
}

}  // namespace ke::cpu
