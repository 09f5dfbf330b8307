// Stop texts in a growing text.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "text/stream_decoder.h"

namespace ke {

// Looks at the decoded text with its tags; each byte is searched once for each stop text. The tokenizer must outlive
// it.
class StopFinder {
 public:
  // stop: none is empty.
  StopFinder(const Tokenizer& tokenizer, const std::vector<std::string>& stop);
  // The first of the stop texts that the text contains now; nullptr where it contains none.
  const std::string* push(int32_t id);

 private:
  std::vector<std::string> stop_;
  size_t longest_ = 0;
  StreamDecoder decoder_;
  std::string tail_;  // the end of the text, too short for any stop text
};

}  // namespace ke
