// A vision encoder for images of any shape (Pix2Struct's kind): patches of a grid, whose rows and columns have
// embeddings, padded to a fixed number. Blocks are v.blk.N.*, see block.h.
#pragma once
#include <vector>

#include "base/cancel.h"
#include "layers/block.h"
#include "layers/load.h"
#include "layers/workspace.h"

namespace ke {

struct GridVitShape {
  BlockShape block;
  int64_t layers = 0, patch_values = 0;
  int64_t max_patches = 0;  // to which an image's patches are padded
  int64_t table_rows = 0;   // of the tables of rows and columns: numbers 1.. are the grid's, 0 is the padding's
};

// Padding is seen by nobody here, so all of its rows come out the same: one is computed for all.
class GridVit {
 public:
  GridVit(Backend& backend, Weights& weights, const GridVitShape& shape);

  // patches: host (rows * cols, patch_values). Returns the features (of unit length) of the patches, row by row, then
  // one of the padding where there is some: (rows * cols + 0 or 1, width) in the workspace. Products go kRowsAtOnce
  // rows at a time, so that of n rows no more than their keys, queries, values and the attention's result exist at
  // once.
  Mat forward(Workspace& ws, const float* patches, int64_t rows, int64_t cols, const CancelToken* cancel) const;
  int64_t padding(int64_t rows, int64_t cols) const { return shape_.max_patches - rows * cols; }

 private:
  // x (n, width) = patches W^T + b + rows of both tables, from `begin` on.
  void embed(const float* patches, int64_t seen, int64_t grid_cols, int64_t begin, Mat pixels, Mat scratch,
             Mat x) const;

  Backend& backend_;
  GridVitShape shape_;
  std::unique_ptr<Linear> patch_embd_;  // (width, patch_values)
  Tensor row_embd_, col_embd_;          // (table_rows, width), stay in the file
  std::vector<Block> blocks_;
  LoadedNorm post_ln_;
  ScoreType score_type_ = ScoreType::Float;  // of the attention: Int8 where the blocks' products are
};

}  // namespace ke
