// Boxes and cells, after transformers' models/kosmos2/processing_kosmos2.py; texts are read by tag_reader.cpp.
#include "text/grounding.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/grounded_reader.h"
#include "text/tag_reader.h"
#include "text/utf8.h"

namespace ke {

void check_bins(int64_t bins) {
  KE_CHECK(bins >= 1 && bins <= 1024, InvalidRequest, "location bins: 1 to 1024 are allowed, not ", bins);
}

std::pair<int32_t, int32_t> box_to_cells(const Box& box, int64_t bins) {
  check_bins(bins);
  const auto& [x1, y1, x2, y2] = box;
  KE_CHECK(0 <= x1 && x1 < x2 && x2 <= 1 && 0 <= y1 && y1 < y2 && y2 <= 1, InvalidRequest,
           "a box is (x1, y1, x2, y2) with 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1, not (", x1, ", ", y1, ", ", x2,
           ", ", y2, ")");
  const double n = static_cast<double>(bins);
  const auto lower = [&](double v) { return std::min(static_cast<int64_t>(std::floor(v * n)), bins - 1); };
  const auto upper = [&](double v, int64_t low) { return std::max(static_cast<int64_t>(std::ceil(v * n - 1)), low); };
  const int64_t left = lower(x1), top = lower(y1);
  const int64_t right = upper(x2, left), bottom = upper(y2, top);
  return {static_cast<int32_t>(top * bins + left), static_cast<int32_t>(bottom * bins + right)};
}

Box cells_to_box(int32_t upper_left, int32_t lower_right, int64_t bins) {
  check_bins(bins);
  for (const int32_t cell : {upper_left, lower_right}) {
    KE_CHECK(cell >= 0 && cell < bins * bins, InvalidRequest, "cell ", cell, " is outside the grid of ", bins, " x ",
             bins);
  }
  const double size = 1.0 / static_cast<double>(bins);
  const auto column = [&](int32_t cell) { return static_cast<double>(cell % bins); };
  const auto row = [&](int32_t cell) { return static_cast<double>(cell / bins); };
  const bool edges = column(upper_left) == column(lower_right) || row(upper_left) == row(lower_right);
  const double near = edges ? 0.0 : size / 2, far = edges ? size : size / 2;
  return {column(upper_left) * size + near, row(upper_left) * size + near, column(lower_right) * size + far,
          row(lower_right) * size + far};
}

Grounded parse_grounded(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, int64_t bins) {
  check_bins(bins);
  GroundedReader reader(tokenizer, bins);
  for (const int32_t id : ids) reader.push(id);
  return reader.grounded();
}

Grounded parse_grounded(std::string_view text, int64_t bins) {
  const size_t bad = utf8::first_ill_formed(text);
  KE_CHECK(bad == std::string_view::npos, InvalidRequest, "the text is not well-formed UTF-8 at byte ", bad);
  check_bins(bins);
  TagReader reader(bins);
  reader.append(text);
  Grounded grounded{std::string(reader.text()), {}};
  for (const FoundEntity& found : reader.entities()) {
    Entity& entity = grounded.entities.emplace_back(found.entity);
    entity.start -= reader.leading();
    entity.end -= reader.leading();
  }
  return grounded;
}

}  // namespace ke
