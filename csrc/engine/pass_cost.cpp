#include "engine/pass_cost.h"

#include <algorithm>

namespace ke {

void PassCost::add(size_t rows, double ms) {
  const size_t size = static_cast<size_t>(std::lower_bound(kSizes.begin(), kSizes.end(), rows) - kSizes.begin());
  passes_[size][counts_[size]++ % kKept] = {rows, ms, ++number_};
}

PassCost::Pass PassCost::quickest(size_t size) const {
  Pass best;
  size_t known = 0;
  for (size_t i = 0; i < std::min(counts_[size], kKept); i++) {
    const Pass& pass = passes_[size][i];
    if (number_ - pass.number > kForgotten) continue;
    if (known++ == 0 || pass.ms < best.ms) best = pass;
  }
  return known < 2 ? Pass{} : best;
}

// On the line between the nearest that are known below and above, else through the two nearest.
double PassCost::of(size_t rows) const {
  Pass below, above;  // the last two met, once `above` is not below `rows`
  for (size_t size = 0; size < kSizes.size() && above.rows < rows; size++) {
    const Pass pass = quickest(size);
    if (pass.rows == 0) continue;
    below = above;
    above = pass;
  }
  if (above.rows == 0) return rule(rows);
  if (above.rows == rows) return above.ms;
  if (below.rows == 0) return above.ms * rule(rows) / rule(above.rows);
  const double row = std::max(0.0, above.ms - below.ms) / static_cast<double>(above.rows - below.rows);
  return above.ms + row * (static_cast<double>(rows) - static_cast<double>(above.rows));
}

}  // namespace ke
