#include "layers/attend.h"

#include <algorithm>

namespace ke {

void attend(Backend& backend, Mat q, Mat k, Mat v, int64_t heads, float scale, Mat out, ScoreType score_type,
            const CancelToken* cancel) {
  const bool cpu = !backend.isa().empty();  // other devices take their work in advance: nothing is cancelled between
  const int64_t at_once = cpu ? std::min<int64_t>(heads, 2 * backend.threads()) : heads;
  const int64_t d = q.cols / heads, kv = k.cols / heads, dv = v.cols / heads;
  for (int64_t h = 0; h < heads; h += at_once) {
    if (cancel) cancel->check();
    const int64_t end = std::min(heads, h + at_once);
    backend.attention(q.col_range(h * d, end * d), k.col_range(h * kv, end * kv), v.col_range(h * dv, end * dv),
                      end - h, scale, out.col_range(h * d, end * d), score_type);
  }
}

}  // namespace ke
