// What every device checks of the shapes that it is given, so that all say it in the same words.
#pragma once
#include "backend/backend.h"
#include "base/error.h"

namespace ke {

constexpr int64_t kMaxHeadDim = 256;

// Values per head of queries (rows, heads * d).
inline int64_t head_dim_of(Mat q, int64_t heads) {
  KE_CHECK(heads > 0 && q.cols % heads == 0, InvalidRequest, "attention: ", q.cols, " values are no multiple of ",
           heads, " heads");
  const int64_t d = q.cols / heads;
  KE_CHECK(d % 8 == 0 && d <= kMaxHeadDim, InvalidRequest, "attention: head width ", d,
           ", supported are multiples of 8 up to ", kMaxHeadDim);
  return d;
}

// Query heads that share a KV head.
inline int64_t head_group(int64_t heads, int64_t kv_heads) {
  KE_CHECK(kv_heads > 0 && heads % kv_heads == 0, InvalidRequest, "attention: ", heads,
           " heads cannot share keys and values of ", kv_heads);
  return heads / kv_heads;
}

// Whether a bias has a value for every pair of a query at up to `last_query` and a key at up to `last_key`, and its
// padding.
inline bool fits(const RelativeBias& b, int64_t heads, int64_t last_query, int64_t last_key) {
  return !b.table || (b.zero >= last_query && b.zero + last_key + 16 <= b.stride && b.table->count >= heads * b.stride);
}

inline bool fits(const Norm& n, int64_t cols) { return n.gamma->count >= cols && (!n.beta || n.beta->count >= cols); }

// A part of a Linear whose rows have `in` values.
inline void check_part(const Tensor& t, int64_t in) {
  const int64_t rows = t.rows(), cols = t.cols();
  KE_CHECK(t.shape.size() == 2 && rows > 0 && cols > 0, InvalidRequest, "tensor ", t.name, ": expected a matrix");
  KE_CHECK(cols == in, InvalidRequest, "tensor ", t.name, ": expected rows of ", in, " values, got ", cols);
  const DTypeInfo& info = dtype_info(t.dtype);
  KE_CHECK(cols % info.block_elems == 0, InvalidRequest, "tensor ", t.name, ": rows of ", cols,
           " values are no multiple of ", info.name, "'s block of ", info.block_elems);
  KE_CHECK(t.bytes == dtype_bytes(t.dtype, rows * cols), InvalidRequest, "tensor ", t.name, ": expected ",
           dtype_bytes(t.dtype, rows * cols), " bytes, got ", t.bytes);
}

}  // namespace ke
