// Reads the ids of an answer as they arrive: the result of parse_grounded on all ids so far, at any time. An answer
// costs time linear in its length.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/answer_text.h"
#include "text/stream_decoder.h"
#include "text/tag_reader.h"
#include "text/token_places.h"

namespace ke {

// The tokenizer must outlive it. A copy is independent.
class GroundedReader final : public AnswerText {
 public:
  // bins: as parse_grounded; 0: the model has no location tokens, so all of its output is text, tags included.
  GroundedReader(const Tokenizer& tokenizer, int64_t bins);
  void push(int32_t id) override;
  void finish() override;
  std::string_view text() const override { return tags_.text(); }
  size_t settled() const override { return tags_.literal(); }  // from a literal '<' on a later '>' removes text
  size_t last_word() const override { return tags_.last_word(); }
  size_t unchanged() override { return tags_.unchanged(); }
  size_t byte_of(int64_t code_point) const override { return tags_.byte_of(code_point); }
  size_t entity_count() const override { return entities_.size(); }
  Entity entity(size_t i) const override;

  // parse_grounded of all ids so far: bytes that are held back count as U+FFFD.
  Grounded grounded() const;

 private:
  void append(std::string_view text);

  const Tokenizer* tokenizer_;
  StreamDecoder decoder_;
  TagReader tags_;
  TokenPlaces places_;            // in the text with tags
  std::vector<Entity> entities_;  // start and end as FoundEntity's
  int32_t next_index_ = 0;
};

}  // namespace ke
