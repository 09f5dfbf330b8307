// How a model's answers are read: token ids -> text and entities. A model chooses one (ModelInfo::answers).
#pragma once
#include <cstdint>
#include <memory>

#include "text/answer_text.h"
#include "text/tokenizer.h"

namespace ke {

class AnswerParser {
 public:
  virtual ~AnswerParser() = default;
  // Reads one answer as its ids arrive; the tokenizer must outlive it. A phrase is empty where the model wrote a box
  // without one.
  virtual std::unique_ptr<AnswerText> open(const Tokenizer& tokenizer) const = 0;
};

// All that the model writes is text, tags included; there are no entities.
std::shared_ptr<const AnswerParser> plain_answers();
// parse_grounded: <phrase>, <object> and location tokens of a grid of bins x bins become entities, and every <...>
// vanishes from the text.
std::shared_ptr<const AnswerParser> grounded_answers(int64_t bins);

}  // namespace ke
