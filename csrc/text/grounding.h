// Location tokens <-> boxes, and phrases with spans and boxes from generated text.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace ke {

// The image is a grid of bins x bins cells, numbered row by row from the upper left; cell = y * bins + x.
// bins: 1..1024, else InvalidRequest, in every function here.
void check_bins(int64_t bins);

struct Box {
  double x1, y1, x2, y2;  // fractions of the whole image, 0..1
};

// Cells of the upper-left and lower-right corner (transformers' processing_kosmos2: floor and ceil - 1, kept inside the
// grid if the rounded product is outside).
// InvalidRequest unless 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1.
std::pair<int32_t, int32_t> box_to_cells(const Box& box, int64_t bins);
// Cell edges when both cells share a row or column, else cell centres; an inverted pair comes back inverted.
// InvalidRequest for a cell outside 0..bins*bins-1.
Box cells_to_box(int32_t upper_left, int32_t lower_right, int64_t bins);

constexpr std::pair<int32_t, int32_t> kNoCells = {-1, -1};  // of a box that is not made of cells

struct Entity {
  std::string phrase;
  int64_t start = 0, end = 0;  // code points in Grounded::text; as transformers gives them
  std::vector<Box> boxes;      // 0..1
  std::vector<std::pair<int32_t, int32_t>> cells;
  std::vector<std::vector<int32_t>> tokens;   // per box: indices into ids of its location tokens
  std::pair<int32_t, int32_t> phrase_tokens;  // [first, last) indices into ids; empty without a phrase
};

struct Grounded {
  std::string text;  // without tags, stripped
  std::vector<Entity> entities;
};

// The same result as transformers' clean_text_and_extract_entities_with_bboxes on the decoded ids (of the answer and
// those prompt tokens that belong to the caption), with its edge cases: an <object> that is empty, unpaired or never
// closed is no entity though its tags vanish from the text; boxes without a phrase right before them become an entity
// each, named by their cells. One difference: an <object> that names a cell outside the grid is no entity.
// Linear time. InvalidRequest for an id outside the vocabulary.
Grounded parse_grounded(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, int64_t bins);
// The same for decoded text, such as the result of clean_up_tokenization; no entity has tokens then.
// InvalidRequest for ill-formed UTF-8.
Grounded parse_grounded(std::string_view text, int64_t bins);

}  // namespace ke
