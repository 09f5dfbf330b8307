// Keys and values in the layouts of attention (KeyTiles), as floats or as codes.
#include "cpu/quantize.inl"
#include "cpu/scatter.inl"

namespace ke::cpu::KE_ISA {
void store_kv(const float* k, const float* v, int64_t head_dim, int64_t value_panel, bool half, void* key,
              void* value) {
  for (int64_t i = 0; i < head_dim; i += 16) {
    const int n = head_dim - i < 16 ? static_cast<int>(head_dim - i) : 16;
    const f32x16 values = load_n(v + i, n);
    if (half) {
      alignas(32) uint16_t bits[16];
      store_half(bits, load_n(k + i, n));
      scatter(bits, n, static_cast<uint16_t*>(key) + i * 16, 16);
      store_half(static_cast<uint16_t*>(value) + i * value_panel, values);
    } else {
      scatter(k + i, n, static_cast<float*>(key) + i * 16, 16);
      store(static_cast<float*>(value) + i * value_panel, values);
    }
  }
}

void pack_keys(const float* k, int64_t k_stride, int64_t n, int64_t head_dim, float* keys) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int64_t dim = 0; dim < head_dim; dim += 16) {
      // Rows a power of two apart share one cache set: each line is read once, into a block of its own.
      const int count = head_dim - dim < 16 ? static_cast<int>(head_dim - dim) : 16;
      alignas(64) float block[16 * 16];
      for (int r = 0; r < 16; ++r) store(block + r * 16, load_n(k + (i + r) * k_stride + dim, count));
      for (int j = 0; j < count; j += 4) {
        f32x16 t[4];
        transpose_4(block + j, 16, t);
        for (int l = 0; l < 4; ++l) store(keys + i * head_dim + (dim + j + l) * 16, t[l]);
      }
    }
  for (; i < n; ++i) scatter(k + i * k_stride, static_cast<int>(head_dim), keys + i / 16 * 16 * head_dim + i % 16, 16);
}

void mean_row(const float* k, int64_t k_stride, int64_t n, int64_t head_dim, float* mean) {
  for (int64_t i = 0; i < head_dim; i += 16) store(mean + i, zero());
  for (int64_t r = 0; r < n; ++r)
    for (int64_t i = 0; i < head_dim; i += 16) store(mean + i, add(load(mean + i), load(k + r * k_stride + i)));
  const f32x16 share = set1(1.0f / static_cast<float>(n));
  for (int64_t i = 0; i < head_dim; i += 16) store(mean + i, mul(load(mean + i), share));
}

void pack_key_codes(const float* k, int64_t k_stride, int64_t n, int64_t head_dim, const float* mean, uint8_t* keys,
                    float* scales) {
  const int d = static_cast<int>(head_dim);
  alignas(64) float row[kMaxHeadDim];
  alignas(64) uint8_t codes[kMaxHeadDim];
  for (int64_t r = 0; r < (n + 15) / 16 * 16; ++r) {
    for (int i = 0; i < d; i += 16) store(row + i, r < n ? sub(load(k + r * k_stride + i), load(mean + i)) : zero());
    scales[r] = quantize_block(row, d, reinterpret_cast<int8_t*>(codes));
    for (int i = 0; i < d; ++i) codes[i] ^= 0x80;  // + 128
    uint32_t dwords[kMaxHeadDim / 4];
    __builtin_memcpy(dwords, codes, d);
    scatter(dwords, d / 4, reinterpret_cast<uint32_t*>(keys + r / 16 * 16 * d) + r % 16, 16);
  }
}

void pack_value_codes(const float* v, int64_t v_stride, int64_t n, int64_t head_dim, uint8_t* codes, float* steps) {
  for (int64_t dim = 0; dim < head_dim; dim += 16, codes += 16 * kKeyTile) {
    const ValueRange range(v + dim, v_stride, n, 1.0f / 254);
    store(steps + dim, range.step);
    store(steps + head_dim + dim, range.middle);
    for (int64_t i = 0; i < (n + 3) / 4 * 4; ++i) {
      alignas(16) int8_t row[16] = {};
      if (i < n) store_bytes(row, range.code(v + i * v_stride + dim));
      for (int lane = 0; lane < 16; ++lane)
        codes[i / 4 * 64 + lane * 4 + i % 4] = static_cast<uint8_t>(row[lane] ^ 0x80);  // + 128
    }
  }
}

void pack_values(const float* v, int64_t v_stride, int64_t n, int64_t head_dim, float* values) {
  for (int64_t dim = 0; dim < head_dim; dim += 16) {
    const int count = head_dim - dim < 16 ? static_cast<int>(head_dim - dim) : 16;
    for (int64_t i = 0; i < n; ++i) store(values + dim * n + i * 16, load_n(v + i * v_stride + dim, count));
  }
}

}  // namespace ke::cpu::KE_ISA
