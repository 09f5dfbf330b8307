// Decoders and encoders of the single types, used by the table in codec.cpp only. Callers guarantee that n is a
// multiple of the type's block and that inputs are finite and in the type's range, and that importance, if any, lies in
// 1e-6..1.
#pragma once
#include <cstdint>

namespace ke {

using DecodeFn = void(const void* blocks, float* out, int64_t n);
using EncodeFn = void(const float* in, void* blocks, int64_t n, int64_t row_length, const float* importance);

DecodeFn decode_f32, decode_f16, decode_bf16, decode_q8_0, decode_q4_0, decode_q4_1, decode_q5_0, decode_q5_1,
    decode_q2_k, decode_q3_k, decode_q4_k, decode_q5_k, decode_q6_k, decode_iq4_nl, decode_iq4_xs;
EncodeFn encode_f32, encode_f16, encode_bf16, encode_q8_0, encode_q4_0, encode_q4_1, encode_q5_0, encode_q5_1,
    encode_q2_k, encode_q3_k, encode_q4_k, encode_q5_k, encode_q6_k, encode_iq4_nl, encode_iq4_xs;

}  // namespace ke
