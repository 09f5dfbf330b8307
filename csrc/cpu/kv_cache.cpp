#include "cpu/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace ke::cpu {

CpuKvCache::CpuKvCache(int n_layers, int64_t heads, int64_t head_dim, int64_t positions, DType type)
    : heads_(heads), head_dim_(head_dim), half_(type == DType::F16) {
  KE_CHECK(type == DType::F16 || type == DType::F32, InvalidRequest, "a KV cache holds F32 or F16 values, not ",
           dtype_info(type).name);
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
  return layers == other.layers && heads_ == other.heads_ && head_dim_ == other.head_dim_ && half_ == other.half_;
}

size_t CpuKvCache::bytes() const { return memory_.size(); }

void CpuKvCache::copy_layer(const CpuKvCache& from, int layer, int64_t begin, int64_t end) {
  for (int64_t next; begin < end; begin = next) {
    next = std::min(end, (begin / kKeyTile + 1) * kKeyTile);
    copy_within_tile(from, layer, begin, next);
  }
}

void CpuKvCache::copy_within_tile(const CpuKvCache& from, int layer, int64_t begin, int64_t end) {
  // Keys go by whole panels from the first that begins at or behind `begin`; the lanes before it one by one.
  const int64_t whole = (begin + kPanelRows - 1) / kPanelRows * kPanelRows;
  const int64_t last = (end + kPanelRows - 1) / kPanelRows * kPanelRows;
  const int64_t bytes = value_bytes(), lanes = std::min(whole, last) - begin;
  for (int64_t h = 0; h < heads_; ++h) {
    if (lanes > 0)
      for (int64_t i = 0; i < head_dim_; ++i)
        std::memcpy(keys(layer, h, begin) + i * kPanelRows * bytes, from.keys(layer, h, begin) + i * kPanelRows * bytes,
                    lanes * bytes);
    if (last > whole)
      std::memcpy(keys(layer, h, whole), from.keys(layer, h, whole), (last - whole) * head_dim_ * bytes);
    for (int64_t p = 0; p < padded_dim() / kPanelRows; ++p)
      std::memcpy(values(layer, h, begin) + p * panel(begin) * kPanelRows * bytes,
                  from.values(layer, h, begin) + p * from.panel(begin) * kPanelRows * bytes,
                  (end - begin) * kPanelRows * bytes);
  }
}

}  // namespace ke::cpu
