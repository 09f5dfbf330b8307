// Decodes a stream of ids: no delta splits a character.
#pragma once
#include <cstdint>
#include <string>

#include "text/tokenizer.h"

namespace ke {

// Turns ids into text deltas. With tags they add up to tokenizer.decode(all ids); without, to decode of the ids that
// are no tags. Every delta is well-formed UTF-8: bytes of an unfinished character, and a run of byte tokens (which is
// text only as a whole), are held back. The tokenizer must outlive it. Not for use by several threads at once.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool keep_tags = false);
  std::string push(int32_t id);  // InvalidRequest for an id outside the vocabulary
  // Returns what is held back, with U+FFFD for ill-formed bytes. More ids may follow, as if a character had ended.
  std::string finish();
  size_t held() const { return held_.size(); }  // bytes held back

 private:
  std::string flushed();
  std::string without_first_blank(std::string text);

  const Tokenizer& tokenizer_;
  bool keep_tags_;
  bool first_ = true;
  bool run_ = false;  // held_ is a run of byte tokens
  std::string held_;
};

}  // namespace ke
