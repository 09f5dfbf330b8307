// Table from type to decoder and encoder, and the checks that all encoders share.
#include "quant/codec.h"

#include <cmath>
#include <vector>

#include "base/error.h"
#include "quant/block_codec.h"

namespace ke {

namespace {

struct Codec {
  DType dtype;
  DecodeFn* decode;
  EncodeFn* encode;
  float largest;  // largest magnitude that an encoder accepts: beyond it a float16 of a block might be infinite
};

// The largest float16 is 65504. A scale is about (largest value) / (codes to it); the search may stretch it, hence the
// distance of about two.
constexpr Codec table[] = {
    {DType::F32, decode_f32, encode_f32, 3.4028235e38f},
    {DType::F16, decode_f16, encode_f16, 65519.996f},
    {DType::BF16, decode_bf16, encode_bf16, 3.3961775e38f},
    {DType::Q8_0, decode_q8_0, encode_q8_0, 65504.f * 64},
    {DType::Q4_0, decode_q4_0, encode_q4_0, 65504.f * 4},
    {DType::Q4_1, decode_q4_1, encode_q4_1, 65504.f / 2},
    {DType::Q5_0, decode_q5_0, encode_q5_0, 65504.f * 8},
    {DType::Q5_1, decode_q5_1, encode_q5_1, 65504.f / 2},
    {DType::Q2_K, decode_q2_k, encode_q2_k, 65504.f * 4},
    {DType::Q3_K, decode_q3_k, encode_q3_k, 65504.f * 16},
    {DType::Q4_K, decode_q4_k, encode_q4_k, 65504.f * 16},
    {DType::Q5_K, decode_q5_k, encode_q5_k, 65504.f * 16},
    {DType::Q6_K, decode_q6_k, encode_q6_k, 65504.f * 16},
    {DType::IQ4_NL, decode_iq4_nl, encode_iq4_nl, 65504.f * 32},
    {DType::IQ4_XS, decode_iq4_xs, encode_iq4_xs, 65504.f * 32},
};

const Codec& find(DType dtype) {
  for (const Codec& row : table)
    if (row.dtype == dtype) return row;
  fail(ErrorCode::Internal, "no codec for dtype ", static_cast<uint32_t>(dtype));
}

void check_range(const Codec& codec, const float* in, int64_t n, int64_t first_index) {
  constexpr int64_t chunk = 4096;
  for (int64_t begin = 0; begin < n; begin += chunk) {
    const int64_t end = begin + chunk < n ? begin + chunk : n;
    int bad = 0;
    for (int64_t i = begin; i < end; ++i) bad |= !(std::fabs(in[i]) <= codec.largest);  // NaN compares false
    if (!bad) continue;
    for (int64_t i = begin; i < end; ++i)
      KE_CHECK(std::fabs(in[i]) <= codec.largest, InvalidRequest, "value ", first_index + i, " is ", in[i], "; ",
               dtype_info(codec.dtype).name, " needs finite values of magnitude <= ", codec.largest);
  }
}

}  // namespace

void decode(DType dtype, const void* blocks, float* out, int64_t n) {
  const DTypeInfo& info = dtype_info(dtype);
  KE_CHECK(n >= 0 && n % info.block_elems == 0, InvalidRequest, "cannot decode ", n, " values of ", info.name,
           ": expected a multiple of ", info.block_elems);
  find(dtype).decode(blocks, out, n);
}

void encode(DType dtype, const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance,
            int64_t first_index) {
  const DTypeInfo& info = dtype_info(dtype);
  KE_CHECK(row_length > 0 && row_length % info.block_elems == 0, InvalidRequest, "rows of ", row_length,
           " values cannot be stored as ", info.name, ": expected a positive multiple of ", info.block_elems);
  KE_CHECK(n >= 0 && n % row_length == 0, InvalidRequest, n, " values are no whole number of rows of ", row_length);
  const Codec& codec = find(dtype);
  check_range(codec, in, n, first_index);
  if (!importance) return codec.encode(in, blocks, n, row_length, nullptr);

  // The largest becomes 1, so that sums of products cannot overflow, and none is 0, so that every value has a best
  // code.
  float largest = 0;
  for (int64_t i = 0; i < row_length; ++i) {
    KE_CHECK(importance[i] >= 0 && importance[i] <= 1e30f, InvalidRequest, "importance ", i, " is ", importance[i],
             "; expected 0..1e30");
    largest = std::fmax(largest, importance[i]);
  }
  KE_CHECK(largest >= 1e-30f, InvalidRequest, "the largest importance is ", largest, "; expected at least 1e-30");
  std::vector<float> weights(importance, importance + row_length);
  for (float& w : weights) w = std::fmax(w / largest, 1e-6f);
  codec.encode(in, blocks, n, row_length, weights.data());
}

}  // namespace ke
