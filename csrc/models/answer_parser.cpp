#include "models/answer_parser.h"

#include <utility>

#include "image/image.h"
#include "text/box_text_reader.h"
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

// Another answer's text without one id.
class Without : public AnswerText {
 public:
  Without(std::unique_ptr<AnswerText> text, int32_t id) : text_(std::move(text)), id_(id) {}
  void push(int32_t id) override {
    if (id != id_) text_->push(id);
  }
  void finish() override { text_->finish(); }
  std::string_view text() const override { return text_->text(); }
  size_t settled() const override { return text_->settled(); }
  size_t last_word() const override { return text_->last_word(); }
  size_t unchanged() override { return text_->unchanged(); }
  size_t byte_of(int64_t code_point) const override { return text_->byte_of(code_point); }
  size_t entity_count() const override { return text_->entity_count(); }
  Entity entity(size_t i) const override { return text_->entity(i); }
  std::vector<std::string> notes() const override { return text_->notes(); }

 private:
  const std::unique_ptr<AnswerText> text_;
  const int32_t id_;
};

class PlainAnswers : public AnswerParser {
 public:
  explicit PlainAnswers(int32_t end) : end_(end) {}
  std::unique_ptr<AnswerText> open(const Tokenizer& tokenizer, const AnswerContext&) const override {
    return std::make_unique<Without>(std::make_unique<GroundedReader>(tokenizer, 0), end_);
  }

 private:
  int32_t end_;
};

class BoxTextAnswers : public AnswerParser {
 public:
  std::unique_ptr<AnswerText> open(const Tokenizer& tokenizer, const AnswerContext&) const override {
    return std::make_unique<BoxTextReader>(tokenizer);
  }
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

std::shared_ptr<const AnswerParser> plain_answers(int32_t end) {
  if (end < 0) return std::make_shared<Answers>(0);
  return std::make_shared<PlainAnswers>(end);
}

std::shared_ptr<const AnswerParser> grounded_answers(int64_t bins) {
  check_bins(bins);
  return std::make_shared<Answers>(bins);
}

std::shared_ptr<const AnswerParser> box_text_answers() { return std::make_shared<BoxTextAnswers>(); }

std::shared_ptr<const AnswerParser> page_answers(int64_t patch, int64_t max_patches) {
  return std::make_shared<PageAnswers>(patch, max_patches);
}

}  // namespace ke
