// The table of storage types.
#include "quant/dtype.h"

#include "base/error.h"
#include "quant/blocks.h"

namespace ke {

static constexpr DTypeInfo table[] = {
    {DType::F32, "F32", 1, 4},
    {DType::F16, "F16", 1, 2},
    {DType::BF16, "BF16", 1, 2},
    {DType::Q8_0, "Q8_0", 32, sizeof(BlockQ8_0)},
    {DType::Q4_0, "Q4_0", 32, sizeof(BlockQ4_0)},
    {DType::Q4_1, "Q4_1", 32, sizeof(BlockQ4_1)},
    {DType::Q5_0, "Q5_0", 32, sizeof(BlockQ5_0)},
    {DType::Q5_1, "Q5_1", 32, sizeof(BlockQ5_1)},
    {DType::Q2_K, "Q2_K", 256, sizeof(BlockQ2_K)},
    {DType::Q3_K, "Q3_K", 256, sizeof(BlockQ3_K)},
    {DType::Q4_K, "Q4_K", 256, sizeof(BlockQ4_K)},
    {DType::Q5_K, "Q5_K", 256, sizeof(BlockQ5_K)},
    {DType::Q6_K, "Q6_K", 256, sizeof(BlockQ6_K)},
    {DType::IQ4_NL, "IQ4_NL", 32, sizeof(BlockIQ4_NL)},
    {DType::IQ4_XS, "IQ4_XS", 256, sizeof(BlockIQ4_XS)},
};

std::span<const DTypeInfo> all_dtypes() { return table; }

const DTypeInfo* find_dtype(uint32_t gguf_id) {
  for (const DTypeInfo& row : table)
    if (static_cast<uint32_t>(row.dtype) == gguf_id) return &row;
  return nullptr;
}

const DTypeInfo* find_dtype(std::string_view name) {
  const auto upper = [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; };
  for (const DTypeInfo& row : table) {
    const std::string_view own = row.name;
    bool same = own.size() == name.size();
    for (size_t i = 0; same && i < own.size(); ++i) same = upper(name[i]) == own[i];
    if (same) return &row;
  }
  return nullptr;
}

const DTypeInfo& dtype_info(DType dtype) {
  const DTypeInfo* row = find_dtype(static_cast<uint32_t>(dtype));
  KE_ASSERT(row != nullptr);
  return *row;
}

}  // namespace ke
