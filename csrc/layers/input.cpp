#include "layers/input.h"

namespace ke {

void embed_inputs(Backend& backend, Workspace& ws, const Tensor& table, const std::vector<InputRow>& rows, float scale,
                  Mat x) {
  const auto is_token = [](const InputRow& row) { return !row.embedding && !row.device_embedding; };
  ws.ids.clear();
  for (const InputRow& row : rows) ws.ids.push_back(is_token(row) ? row.id : -1);
  backend.embed_rows(table, ws.ids, scale, x);
  for (size_t begin = 0; begin < rows.size();) {
    // A run of adjacent vectors: an image's rows.
    const InputRow& first = rows[begin];
    size_t end = begin + 1;
    const auto follows = [&](const float* p, const float* from) {
      return from ? p == from + static_cast<int64_t>(end - begin) * x.cols : !p;
    };
    while (end < rows.size() && !is_token(first) && follows(rows[end].embedding, first.embedding) &&
           follows(rows[end].device_embedding, first.device_embedding))
      end++;
    const Mat run = x.row_range(static_cast<int64_t>(begin), static_cast<int64_t>(end));
    if (first.device_embedding) {
      const Mat from(const_cast<float*>(first.device_embedding), run.rows, x.cols, x.cols);
      backend.scale(from, scale, run);
    } else if (first.embedding) {
      backend.write(first.embedding, run);
      backend.scale(run, scale, run);
    }
    begin = end;
  }
}

}  // namespace ke
