// Fused operations for devices that do not have their own.
#include <algorithm>

#include "backend/backend.h"
#include "base/error.h"
#include "quant/codec.h"

namespace ke {

Sharing Backend::end_sharing(std::optional<SharingStep>*) {
  Sharing sharing;
  sharing.note = concat("the ", name(), " keeps its weights in memory of its own");
  return sharing;
}

void Backend::norm_linear(Mat x, const Norm& norm, const Linear& w, Activation act, Mat residual, Mat scratch, Mat y) {
  const Mat normed(scratch.data, x.rows, x.cols, scratch.stride);
  this->norm(x, norm, normed);
  linear(w, normed, act, residual, y);
}

void Backend::norm_linear_rows(Mat x, const Norm& norm, const Linear& w, std::span<const int32_t> outputs, Mat scratch,
                               Mat y) {
  const std::unique_ptr<Buffer> all = alloc(x.rows * w.out);
  const Mat columns(*all, x.rows, w.out);
  norm_linear(x, norm, w, Activation::None, {}, scratch, columns);
  for (size_t i = 0; i < outputs.size(); i++) {
    const int64_t from = outputs[i], to = static_cast<int64_t>(i);
    copy(columns.col_range(from, from + 1), y.col_range(to, to + 1));
  }
}

void Backend::embed_rows(const Tensor& table, std::span<const int32_t> ids, float factor, Mat y) {
  KE_ASSERT(table.cols() == y.cols && static_cast<int64_t>(ids.size()) == y.rows);
  const size_t row_bytes = table.bytes / static_cast<size_t>(table.rows());
  std::vector<float> run;
  for (int64_t begin = 0; begin < y.rows;) {
    int64_t end = begin;
    run.clear();
    for (; end < y.rows && ids[end] >= 0; end++) {
      KE_ASSERT(ids[end] < table.rows());
      run.resize(run.size() + y.cols);
      float* row = run.data() + run.size() - y.cols;
      decode(table.dtype, table.data + row_bytes * static_cast<size_t>(ids[end]), row, y.cols);
      for (int64_t i = 0; i < y.cols; i++) row[i] *= factor;
    }
    if (end > begin) write(run.data(), y.row_range(begin, end));
    begin = std::max(end, begin + 1);
  }
}

}  // namespace ke
