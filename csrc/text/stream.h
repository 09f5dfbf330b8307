// Entities while ids still arrive, and transformers' clean-up of blanks.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/grounded_reader.h"
#include "text/stream_decoder.h"
#include "text/tokenizer.h"

namespace ke {

// Reports each entity of parse_grounded as soon as its </object> has arrived. Spans refer to the text so far, which
// differs from the final text only where a literal '<' of the text is still open.
class StreamGrounder {
 public:
  // The tokenizer must outlive it. InvalidRequest as check_bins.
  StreamGrounder(const Tokenizer& tokenizer, int64_t bins);
  std::vector<Entity> push(int32_t id);  // the entities that this id completed; errors as parse_grounded

 private:
  GroundedReader reader_;
};

// transformers' clean_up_tokenization: " ." -> ".", " ?", " !", " ,", " ' " -> "'", " n't", " 'm", " 's", " 've", "
// 're", one after another over the whole text. For callers who need transformers' exact output.
std::string clean_up_tokenization(std::string_view text);

}  // namespace ke
