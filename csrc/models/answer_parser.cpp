#include "models/answer_parser.h"

#include "image/image.h"
#include "text/grounded_reader.h"
#include "text/page_reader.h"

namespace ke {
namespace {

// bins 0: there are no location tokens, and all is text.
class Answers : public AnswerParser {
 public:
  explicit Answers(int64_t bins) : bins_(bins) {}
  std::unique_ptr<AnswerText> open(const Tokenizer& tokenizer, const AnswerContext&) const override {
    return std::make_unique<GroundedReader>(tokenizer, bins_);
  }

 private:
  int64_t bins_;
};

class PageAnswers : public AnswerParser {
 public:
  PageAnswers(int64_t patch, int64_t max_patches) : patch_(patch), max_patches_(max_patches) {}
  std::unique_ptr<AnswerText> open(const Tokenizer& tokenizer, const AnswerContext& c) const override {
    if (c.width <= 0 || c.height <= 0) return std::make_unique<PageReader>(tokenizer, 0, 0, c.markdown);
    const PatchGridSize grid = patch_grid_size(c.width, c.height, patch_, max_patches_);
    return std::make_unique<PageReader>(tokenizer, grid.cols * patch_, grid.rows * patch_, c.markdown);
  }

 private:
  int64_t patch_, max_patches_;
};

}  // namespace

std::shared_ptr<const AnswerParser> plain_answers() { return std::make_shared<Answers>(0); }

std::shared_ptr<const AnswerParser> grounded_answers(int64_t bins) {
  check_bins(bins);
  return std::make_shared<Answers>(bins);
}

std::shared_ptr<const AnswerParser> page_answers(int64_t patch, int64_t max_patches) {
  return std::make_shared<PageAnswers>(patch, max_patches);
}

}  // namespace ke
