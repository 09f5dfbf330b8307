// Keys and values of 8 bits (Q8_0), for caches that take half the memory. Attention has no kernels of their own: a tile
// becomes floats again while rows meet it. Apart from kernels.h, for the same reason plain data.
#pragma once
#include <stdint.h>

namespace ke::cpu {

constexpr int kKvBlock = 32;  // dims of one position that share a scale; the last ones of a head may be fewer
static inline constexpr int64_t kv_blocks(int64_t head_dim) { return (head_dim + kKvBlock - 1) / kKvBlock; }

// Keys and values of one head in a tile: code * scale is a value. Scales are float16.
// keys: [position / 16][dim][16], key_scales: [position / 16][block][16]; values: [dim / 16][panel][16], value_scales:
// [block][panel].
struct KvCodes {
  int8_t* keys;
  uint16_t* key_scales;
  int8_t* values;
  uint16_t* value_scales;
  int64_t panel;  // positions that there is room for, a multiple of 16
};

struct KvCodeKernels {
  // One row of one head, at the position's lanes and vectors: per block scale = amax / 127 rounded to float16, code =
  // nearest(x * (127 / amax)), as Q8_0 of model files. A block that holds NaN or infinity gives nothing finite again.
  void (*store)(const float* k, const float* v, int64_t head_dim, const KvCodes* at);
  // The first n positions of a tile: keys [position / 16][dim][16], values [dim / 16][n][16].
  void (*load)(const KvCodes* tile, int64_t n, int64_t head_dim, float* keys, float* values);
};

}  // namespace ke::cpu
