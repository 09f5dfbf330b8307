// The storage types of tensors: one row of a table per type.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace ke {

// Values are GGUF's type ids: they are stored in files and never change.
enum class DType : uint32_t {
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q2_K = 10,
  Q3_K = 11,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  IQ4_NL = 20,
  IQ4_XS = 23,
  BF16 = 30,
};

struct DTypeInfo {
  DType dtype;
  const char* name;      // GGUF's spelling, upper case
  uint32_t block_elems;  // values per block
  uint32_t block_bytes;  // bytes per block
};

std::span<const DTypeInfo> all_dtypes();

// nullptr when the id is not one of ours.
const DTypeInfo* find_dtype(uint32_t gguf_id);
const DTypeInfo* find_dtype(std::string_view name);  // case-insensitive: "q4_k" finds Q4_K
const DTypeInfo& dtype_info(DType dtype);

// Bytes of n consecutive values; n must be a multiple of block_elems.
inline size_t dtype_bytes(DType dtype, int64_t n) {
  const DTypeInfo& i = dtype_info(dtype);
  return static_cast<size_t>(n) / i.block_elems * i.block_bytes;
}

}  // namespace ke
