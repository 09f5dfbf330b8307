// How a model's answers are read: token ids -> text and entities. A model chooses one (ModelInfo::answers).
#pragma once
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/grounding.h"
#include "text/tokenizer.h"

namespace ke {

class AnswerParser {
 public:
  virtual ~AnswerParser() = default;
  // Text without blanks at its ends, and entities; a phrase is empty where the model wrote a box without one.
  // InvalidRequest for an id outside the vocabulary.
  virtual Grounded parse(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) const = 0;
  // How many bytes of a text that parse() gave, its last word apart, no later token can change.
  virtual size_t settled(std::string_view text) const = 0;
};

// All that the model writes is text, tags included; there are no entities.
std::shared_ptr<const AnswerParser> plain_answers();
// parse_grounded: <phrase>, <object> and location tokens of a grid of bins x bins become entities, and every <...>
// vanishes from the text.
std::shared_ptr<const AnswerParser> grounded_answers(int64_t bins);

}  // namespace ke
