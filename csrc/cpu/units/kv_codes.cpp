// Rows of a quantized cache: floats to codes, and a tile of codes to floats again.
#include "cpu/kv_codes.h"

#include "cpu/quantize.inl"
#include "cpu/scatter.inl"

namespace ke::cpu::KE_ISA {
namespace {

void store_kv_codes(const float* k, const float* v, int64_t head_dim, const KvCodes* at) {
  alignas(64) float scales[16] = {};  // of up to 8 blocks of keys, then those of values
  constexpr int kValues = kMaxHeadDim / kKvBlock;
  for (int64_t i = 0; i < head_dim; i += kKvBlock) {
    const int n = head_dim - i < kKvBlock ? static_cast<int>(head_dim - i) : kKvBlock;
    alignas(64) float x[2][kKvBlock] = {};
    alignas(64) int8_t codes[2][kKvBlock];
    __builtin_memcpy(x[0], k + i, n * sizeof(float));
    __builtin_memcpy(x[1], v + i, n * sizeof(float));
    scales[i / kKvBlock] = quantize_block(x[0], kKvBlock, codes[0]);
    scales[kValues + i / kKvBlock] = quantize_block(x[1], kKvBlock, codes[1]);
    scatter(codes[0], n, at->keys + i * 16, 16);
    for (int j = 0; j < n; j += 16) __builtin_memcpy(at->values + (i + j) * at->panel, codes[1] + j, 16);
  }
  alignas(32) uint16_t halves[16];
  store_half(halves, load(scales));
  const int blocks = static_cast<int>(kv_blocks(head_dim));
  scatter(halves, blocks, at->key_scales, 16);
  scatter(halves + kValues, blocks, at->value_scales, at->panel);
}

void load_kv_codes(const KvCodes* tile, int64_t n, int64_t head_dim, float* keys, float* values) {
  const int64_t blocks = kv_blocks(head_dim);
  for (int64_t p = 0; p < n; p += 16)
    for (int64_t block = 0; block < blocks; ++block) {
      const f32x16 scale = load_half(tile->key_scales + p * blocks + block * 16);
      const int64_t end = block + 1 < blocks ? (block + 1) * kKvBlock : head_dim;
      for (int64_t dim = block * kKvBlock; dim < end; ++dim) {
        const int64_t at = p * head_dim + dim * 16;
        store(keys + at, mul(to_float(load_bytes(tile->keys + at)), scale));
      }
    }
  for (int64_t dim = 0; dim < head_dim; dim += 16) {
    const int8_t* codes = tile->values + dim * tile->panel;
    const uint16_t* halves = tile->value_scales + dim / kKvBlock * tile->panel;
    float* to = values + dim * n;
    for (int64_t i = 0; i < n; i += 16) {
      alignas(64) float scales[16];
      store(scales, load_half(halves + i));
      for (int64_t j = i; j < n && j < i + 16; ++j)
        store(to + j * 16, mul(to_float(load_bytes(codes + j * 16)), set1(scales[j - i])));
    }
  }
}

}  // namespace

extern const KvCodeKernels kv_code_kernels;
const KvCodeKernels kv_code_kernels = {store_kv_codes, load_kv_codes};

}  // namespace ke::cpu::KE_ISA
