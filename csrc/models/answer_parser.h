// How a model's answers are read: token ids -> text and entities. A model chooses one (ModelInfo::answers).
#pragma once
#include <cstdint>
#include <memory>

#include "text/answer_text.h"
#include "text/tokenizer.h"

namespace ke {

// What an answer is about, as far as reading it depends on that.
struct AnswerContext {
  int64_t width = 0, height = 0;  // of the upright image that its boxes refer to; 0: there is none
  bool markdown = false;          // Markdown was asked for
};

class AnswerParser {
 public:
  virtual ~AnswerParser() = default;
  // Reads one answer as its ids arrive; the tokenizer must outlive it. A phrase is empty where the model wrote a box
  // without one.
  virtual std::unique_ptr<AnswerText> open(const Tokenizer& tokenizer, const AnswerContext& context = {}) const = 0;
};

// All that the model writes is text, tags included, but for `end`, the tag that ends its answers (-1: there is none);
// there are no entities.
std::shared_ptr<const AnswerParser> plain_answers(int32_t end = -1);
// parse_grounded: <phrase>, <object> and location tokens of a grid of bins x bins become entities, and every <...>
// vanishes from the text.
std::shared_ptr<const AnswerParser> grounded_answers(int64_t bins);
// BoxTextReader: boxes that are written as text, {<12><5><80><100>}, become entities.
std::shared_ptr<const AnswerParser> box_text_answers();
// PageReader: lines of a page with boxes, or Markdown. Coordinates are pixels of the image as the patch grid has it
// (image/image.h: patch_grid_size).
std::shared_ptr<const AnswerParser> page_answers(int64_t patch, int64_t max_patches);

}  // namespace ke
