#include "models/answer_parser.h"

#include "text/grounded_reader.h"

namespace ke {
namespace {

// bins 0: there are no location tokens, and all is text.
class Answers : public AnswerParser {
 public:
  explicit Answers(int64_t bins) : bins_(bins) {}
  std::unique_ptr<AnswerText> open(const Tokenizer& tokenizer) const override {
    return std::make_unique<GroundedReader>(tokenizer, bins_);
  }

 private:
  int64_t bins_;
};

}  // namespace

std::shared_ptr<const AnswerParser> plain_answers() { return std::make_shared<Answers>(0); }

std::shared_ptr<const AnswerParser> grounded_answers(int64_t bins) {
  check_bins(bins);
  return std::make_shared<Answers>(bins);
}

}  // namespace ke
