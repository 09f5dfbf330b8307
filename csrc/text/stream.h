// Entities while ids still arrive, and transformers' clean-up of blanks.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/grounding.h"
#include "text/stream_decoder.h"
#include "text/tokenizer.h"

namespace ke {

// Reports each entity of parse_grounded as soon as its </object> has arrived. Spans refer to the text so far, which
// differs from the final text only where a literal '<' of the text is still open.
class StreamGrounder {
 public:
  StreamGrounder(const Tokenizer& tokenizer, int64_t bins);
  std::vector<Entity> push(int32_t id);  // the entities that this id completed; errors as parse_grounded

 private:
  const Tokenizer& tokenizer_;
  int64_t bins_;
  std::vector<int32_t> ids_;
  std::string tail_;     // the end of the decoded text, long enough to recognise "</object>"
  size_t reported_ = 0;  // entities
};

// transformers' clean_up_tokenization: " ." -> ".", " ?", " !", " ,", " ' " -> "'", " n't", " 'm", " 's", " 've", "
// 're", one after the other over the whole text. For callers who want transformers' exact output.
std::string clean_up_tokenization(std::string_view text);

}  // namespace ke
