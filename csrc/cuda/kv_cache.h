// Keys and values of one sequence on the device, as DevicePosition has them.
#pragma once
#include <functional>

#include "backend/backend.h"
#include "cuda/kernels.h"
#include "cuda/memory.h"

namespace ke::cuda {

class CudaKvCache final : public KvCache {
 public:
  // before_free: called before the memory is freed.
  CudaKvCache(int n_layers, int64_t heads, int64_t head_dim, int64_t positions, CacheType type,
              std::function<void()> before_free)
      : heads_(heads), head_dim_(head_dim), type_(type), before_free_(std::move(before_free)) {
    layers = n_layers;
    width = heads * head_dim;
    capacity = positions;
    memory_ = DeviceMemory(bytes());
  }
  ~CudaKvCache() override { before_free_(); }
  size_t bytes() const override { return static_cast<size_t>(planes() * capacity) * row_bytes(); }
  int64_t heads() const { return heads_; }
  int64_t head_dim() const { return head_dim_; }
  CacheType type() const { return type_; }
  // Of one layer; group: query heads that share keys and values.
  CacheShape shape(int layer, int64_t group) const {
    return {heads_, head_dim_, group, static_cast<int64_t>(row_bytes()), layer, type_};
  }
  uint8_t* data() const { return memory_.as<uint8_t>(); }
  bool same_shape(const CudaKvCache& o) const {
    return layers == o.layers && heads_ == o.heads_ && head_dim_ == o.head_dim_ && type_ == o.type_;
  }
  // Planes (layer, keys or values, head) of `capacity` positions of row_bytes().
  int64_t planes() const { return layers * 2 * heads_; }
  size_t row_bytes() const { return static_cast<size_t>(cache_row_bytes(type_, head_dim_)); }

  // Positions [begin, end) of every plane.
  void copy_from(const CudaKvCache& from, int64_t begin, int64_t end, cudaStream_t stream) {
    if (begin == end) return;
    check(cudaMemcpy2DAsync(data() + begin * row_bytes(), capacity * row_bytes(), from.data() + begin * row_bytes(),
                            from.capacity * row_bytes(), (end - begin) * row_bytes(), planes(),
                            cudaMemcpyDeviceToDevice, stream),
          "copy keys and values");
  }
  void swap_memory(CudaKvCache& other) {
    std::swap(memory_, other.memory_);
    std::swap(capacity, other.capacity);
  }

 private:
  int64_t heads_, head_dim_;
  CacheType type_;
  std::function<void()> before_free_;
  DeviceMemory memory_;
};

}  // namespace ke::cuda
