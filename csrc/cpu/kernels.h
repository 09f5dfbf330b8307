// The table of CPU kernels: what each instruction set supplies, called through function pointers by cpu_backend.cpp.
// Everything here is plain data, because the files compiled for an instruction set may include nothing that emits
// shared inline functions (the linker could hand such a copy to code that must run everywhere).
//
// Weights lie in panels of 16 output rows (one vector lane per row); activations are repacked per call into tiles of a
// few rows ("columns" below: one column of the tile per row of x), so that one weight vector meets one broadcast value:
//   acc[lane][column] += w[k][lane] * x[k][column].
#pragma once
#include <stdint.h>

#define KE_INLINE __attribute__((always_inline)) inline

namespace ke::cpu {

constexpr int kPanelRows = 16;    // output rows per panel = lanes of a vector
constexpr int kMaxTile = 8;       // no ISA uses wider tiles of columns
constexpr int kFloatChunk = 128;  // float products are summed in chunks of this many k, chunk sums are added in order
constexpr int kBlock = 256;       // k per activation block where the row length allows it, else 32
constexpr int kStarts = 24;       // of a block of kBlock
constexpr int kTilePadding = 15;  // rows behind the last one that may be read: tile registers take 16 at a time

constexpr int kMaxHeadDim = 256;

// How a weight matrix is stored in panels. Layouts: panels.h. I8 is no file's type: see repack_i8.cpp.
enum class PanelType : int {
  F32,
  F16,
  BF16,
  Q8_0,
  Q4_0,
  Q4_1,
  Q5_0,
  Q5_1,
  Q3_K,
  Q4_K,
  Q5_K,
  Q6_K,
  I8,
  IQ4_NL,
  IQ4_XS,
  Q2_K,
};

enum class Act : int { None, GeluErf, QuickGelu, Relu, GeluTanh, Silu };  // as Activation

// Rows of activations, repacked for the linear kernels so that a tile's rows lie close together:
// float:     values[chunk of kFloatChunk k][row][kFloatChunk]
// quantized: codes[kBlock k][row][kBlock], sum32[kBlock k][row][8], sum16[kBlock k][row][16], mins[kBlock k][row][16],
//            starts[kBlock k][row][kStarts], total[kBlock k][row],
//            scale[block][row], a block being kBlock k, or 32 where the row length is no multiple of that
// A quantized value is scale * code; sums are of 32 or 16 codes. `mins` has the sums of 32 split as 64 * high + low:
// bytes [half of the block][0 = high, 1 = low][sub-block % 4]. sum16, mins, `starts` and `total` are void where a block
// is 32.
// `starts`: where sums of products with weight codes that are too high begin: -32 sum16 (Q6_K, and Q3_K, whose codes
// come eightfold; AVX2's, for more than one row: two int16, see quant_madd.inl), -128 sum32 (Q8_0, IQ4_NL, IQ4_XS).
// `total`: likewise -128 times the sum of all (I8).
struct Packed {
  int64_t rows, cols;  // of x
  int block;           // quantized: k per block, kBlock or 32
  float* values;
  int8_t* codes;
  float* scale;
  int32_t* sum16;
  int32_t* sum32;
  int8_t* mins;
  int32_t* starts;
  int32_t* total;
  bool only_i8;  // all weights are I8, which read no sums but `total`; the others are void
};

// y = act(acc + bias) + residual for 16 outputs of one row.
struct Epilogue {
  const float* bias;  // of the part's first output row, 16-padded; or nullptr
  Act act;
  const float* residual;  // of (x row 0, the part's first output); or nullptr
  int64_t residual_stride;
  float* y;  // likewise
  int64_t y_stride;
};

// One thread's share of y = x W^T: one group of panels (Kernels::panels of them), some tiles of x.
struct LinearTask {
  PanelType type;
  const uint8_t* group;
  int64_t output;   // the group's first output row within the part
  int64_t outputs;  // output rows of the part; the last group may be partly used
  const Packed* x;
  int64_t tile_begin, tile_end;
  Epilogue epilogue;
  uint8_t* scratch;  // linear_scratch_bytes() of the ISA, 64-byte aligned
};

// Attention. A row that sees up to kOnePassKeys positions takes one pass over all of them: its scores, their softmax,
// the sum of values. Of a row that sees more, no more scores than those of one tile of kKeyTile positions ever exist:
// tile by tile a running maximum and sum are kept, and what was summed before is rescaled when the maximum grows. A
// row's way depends on how many positions it sees alone, and so do its bits.
constexpr int64_t kOnePassKeys = 1024;
constexpr int64_t kKeyTile = 256;

// Keys and values of one head in tiles of kKeyTile positions; the last may be shorter, or if it is the only one longer.
// keys: panels of 16 positions, [position / 16][dim][16]; values: panels of 16 dims, [dim / 16][position][16].
struct KeyTiles {
  const uint8_t* keys;    // of the first tile
  const uint8_t* values;  // likewise
  int64_t step;           // bytes from a tile's keys, or values, to the next one's
  int64_t last;           // index of the last tile
  const uint8_t* last_keys;
  const uint8_t* last_values;
  int64_t last_panel;  // positions per panel of values in the last tile

  KE_INLINE const uint8_t* keys_of(int64_t tile) const { return tile == last ? last_keys : keys + tile * step; }
  KE_INLINE const uint8_t* values_of(int64_t tile) const { return tile == last ? last_values : values + tile * step; }
  KE_INLINE int64_t panel_of(int64_t tile) const { return tile == last ? last_panel : kKeyTile; }
  KE_INLINE int64_t tile_positions() const { return last == 0 ? last_panel : kKeyTile; }
};

// Rows of queries of one head.
struct QueryRows {
  const float* q;  // (rows, head_dim)
  int64_t stride;
  int64_t head_dim;
  float scale;
};

// One pass of up to `tile_cols` rows. Row r sees positions 0 .. lengths[r] - 1.
struct AttentionTask {
  QueryRows queries;
  int rows;
  int64_t lengths[kMaxTile];
  bool half;  // keys and values are float16, else float32
  KeyTiles tiles;
  const float* key_scales;  // one per position, keys being codes (Kernels::pack_key_codes); nullptr: keys are floats
  const float* bias[kMaxTile] = {};  // of each row, one value per position, is added to its scores; nullptr: nothing is
  float* out;                        // (rows, head_dim)
  int64_t out_stride;
  float* scratch;  // attention_scratch_floats(), 64-byte aligned
};

// One tile of keys and values for any number of rows. Row r sees the tile's first lengths[r] positions (none if that is
// not positive), all of them where there are no lengths.
struct KeyTileTask {
  QueryRows queries;
  int64_t rows;
  const int64_t* lengths;
  int64_t positions;  // of the tile, at most kKeyTile
  bool half;
  const void* keys;
  const float* key_scales;             // as above
  const float* const* bias = nullptr;  // as above, of all rows, from the tile's first position on; or nullptr
  const void* values;
  const float* value_steps;  // values being codes (Kernels::pack_value_codes); nullptr: values are floats
  int64_t value_panel;       // positions per panel of values
  float* states;             // (rows, row_state_floats): begin_rows before the first tile, finish_rows behind the last
  float* scratch;            // key_tile_scratch_floats, 64-byte aligned
};

// Up to 16 rows of queries of one head, which see all positions in one pass: everything is a code.
struct CodedAttentionTask {
  QueryRows queries;
  int rows;
  int64_t positions;        // at most kOnePassKeys
  const uint8_t* keys;      // Kernels::pack_key_codes
  const float* key_scales;  // likewise
  const int8_t* values;     // Kernels::pack_value_digits
  const float* value_steps;
  float* out;  // (rows, head_dim)
  int64_t out_stride;
  uint8_t* scratch;  // coded_attention_scratch_bytes(), 64-byte aligned
};

// As Norm. beta: or nullptr.
struct RowNorm {
  const float* gamma;
  const float* beta;
  float eps;
  bool rms;
};

struct Kernels {
  const char* name;
  int tile_cols;    // widest tile of columns
  int panels;       // panels a tile kernel takes at once
  bool prefers_i8;  // has products with I8, and is faster with them
  int64_t linear_scratch_bytes;

  // Packs one row of x as floats, or quantized.
  void (*pack_floats)(const float* x, const Packed* out, int64_t row);
  void (*pack_quantized)(const float* x, const Packed* out, int64_t row);
  void (*linear)(const LinearTask* task);

  void (*norm)(const float* x, const RowNorm* norm, int64_t n, float* y);
  void (*l2_normalize)(float* x, float eps, int64_t n);
  void (*add)(const float* x, float* y, int64_t n);
  void (*add_scaled)(const float* x, float factor, float* y, int64_t n);
  void (*scale)(const float* x, float factor, float* y, int64_t n);
  void (*gate)(const float* gate, Act act, const float* up, float* y, int64_t n);

  // The first `dims` values of one head, see Rope; turn: a row of its table.
  void (*rope)(float* x, const float* turn, int64_t dims, bool interleaved);

  void (*attention)(const AttentionTask* task);
  void (*begin_rows)(float* states, int64_t rows, int64_t head_dim);
  void (*attend_tile)(const KeyTileTask* task);
  void (*finish_rows)(const float* states, int64_t rows, int64_t head_dim, float* out, int64_t out_stride);
  // One row of one head, 16-padded dims: key into [dim][16] at its lane, value into [dim / 16][value_panel][16].
  void (*store_kv)(const float* k, const float* v, int64_t head_dim, int64_t value_panel, bool half, void* key,
                   void* value);
  // n positions of one head in that layout, values in panels of n positions.
  void (*pack_keys)(const float* k, int64_t k_stride, int64_t n, int64_t head_dim, float* keys);
  void (*pack_values)(const float* v, int64_t v_stride, int64_t n, int64_t head_dim, float* values);
  // The mean of n rows. head_dim is a multiple of 16.
  void (*mean_row)(const float* k, int64_t k_stride, int64_t n, int64_t head_dim, float* mean);
  // Keys less the mean of all keys, which adds the same to all scores of a query and so leaves its softmax alone, as
  // codes with one scale per position (16-padded): panels of 16 positions, [position / 16][dim / 4][position % 16]
  // [dim % 4], codes 128 too high. head_dim is a multiple of 16.
  void (*pack_key_codes)(const float* k, int64_t k_stride, int64_t n, int64_t head_dim, const float* mean,
                         uint8_t* keys, float* scales);
  // Up to kKeyTile values as codes of one step per dimension, around the middle of its range: panels of 16 dimensions,
  // [dim / 16][position / 4][dim % 16][position % 4] for kKeyTile positions, codes 128 too high; steps: (head_dim),
  // then the middles. nullptr: the instruction set is no faster with them. head_dim is a multiple of 16.
  void (*pack_value_codes)(const float* v, int64_t v_stride, int64_t n, int64_t head_dim, uint8_t* codes, float* steps);
  // Attention with tile registers, of heads whose size is a multiple of 64; nullptr: the instruction set has none.
  void (*attend_codes)(const CodedAttentionTask* task) = nullptr;
  // n values as codes of 15 bits, likewise with one step per dimension around the middle of its range; a code is
  // 128 * high + low. Panels of the high digits and then of the low ones, [dim / 16][position / 4][dim % 16]
  // [position % 4] for padded_positions(n), zero beyond n; steps: (head_dim), then the middles.
  void (*pack_value_digits)(const float* v, int64_t v_stride, int64_t n, int64_t head_dim, int8_t* digits,
                            float* steps) = nullptr;
};

// Products with one row, of quantized weights, in groups of `panels`.
struct OneRowKernel {
  const char* isa;
  int panels;
  void (*linear)(const LinearTask* task);
};

// Floats of scratch that attention needs for rows that see up to `positions` positions.
static inline constexpr int64_t attention_scratch_floats(int64_t positions) {
  return kMaxTile * (2 * kMaxHeadDim + (positions + 15) / 16 * 16 + 16);
}
static inline constexpr int64_t key_tile_scratch_floats() { return kMaxTile * (2 * kMaxHeadDim + 2 * kKeyTile + 16); }
// Of keys, as the tile registers take them at once.
static inline constexpr int64_t padded_positions(int64_t n) { return (n + 63) / 64 * 64; }
// Codes of queries, sums, scores, codes of weights.
static inline constexpr int64_t coded_attention_scratch_bytes(int64_t head_dim, int64_t positions) {
  return 16 * (head_dim + (8 * 16 + padded_positions(positions) + 16) * 4 + 2 * padded_positions(positions));
}
// Of a row between two tiles: sums of values, 16-padded dims; the maximum; the sum of weights.
static inline constexpr int64_t row_state_floats(int64_t head_dim) { return (head_dim + 15) / 16 * 16 + 16; }

// Tiles of n rows: as few as possible, as even as possible, wider ones first.
static inline constexpr int64_t tile_count(int64_t n, int tile_cols) { return (n + tile_cols - 1) / tile_cols; }
static inline constexpr int64_t tile_start(int64_t n, int tile_cols, int64_t tile) {
  const int64_t tiles = tile_count(n, tile_cols), base = n / tiles, wider = n % tiles;
  return tile * base + (tile < wider ? tile : wider);
}

}  // namespace ke::cpu
