// Reads an answer as its ids arrive: its text and its entities so far.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/grounding.h"

namespace ke {

// Not for use by several threads at once.
class AnswerText {
 public:
  virtual ~AnswerText() = default;
  virtual void push(int32_t id) = 0;  // InvalidRequest for an id outside the vocabulary; nothing changes then
  virtual void finish() = 0;          // no more ids: an incomplete character becomes U+FFFD

  // The text so far, without blanks at its ends and without the bytes of an incomplete character.
  virtual std::string_view text() const = 0;
  virtual size_t settled() const = 0;    // bytes of text(), without its last word, that no later id can change
  virtual size_t last_word() const = 0;  // the byte of the last blank (U+0020) in text(); 0 if there is none
  virtual size_t unchanged() = 0;        // bytes of text() that are unchanged since the last call; first: 0
  // The byte of text() where its code point of that number begins; its ends for numbers outside.
  virtual size_t byte_of(int64_t code_point) const = 0;

  virtual size_t entity_count() const = 0;
  virtual Entity entity(size_t i) const = 0;                     // with its position in the current text()
  virtual std::vector<std::string> notes() const { return {}; }  // what should be known about a finished answer
  // Whether the words of the last entity went on to the end of a finished answer: more ids could have made them longer.
  virtual bool ends_in_entity() const { return false; }
};

}  // namespace ke
