// Token ids of an answer -> text, entities with scores, and stream events. The parsing itself is the model's.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "models/answer_parser.h"
#include "models/info.h"
#include "text/grounding.h"
#include "text/tokenizer.h"

namespace ke {

struct AnswerBox {
  Box box;  // fractions of the picture
  std::pair<int32_t, int32_t> cells;
  double score;  // exp(mean ln p) of its two location tokens, at most 1; NaN where one of them is not of the answer
};

struct AnswerEntity {
  std::string phrase;           // empty where the model wrote a box without a phrase
  int64_t start, end;           // code points of Answer::text, as parse_grounded gives them
  size_t begin_byte, end_byte;  // the same in bytes, inside the text and in order
  std::vector<AnswerBox> boxes;
  double score;         // of all its location tokens
  double phrase_score;  // exp(sum ln p) of the tokens inside <phrase>; NaN where not all of them are of the answer
};

struct Answer {
  std::string text;
  std::vector<AnswerEntity> entities;
};

// What is needed to read answers of one model; a view, both must outlive it.
class AnswerReader {
 public:
  AnswerReader(const Tokenizer& tokenizer, const AnswerParser& parser) : tokenizer_(tokenizer), parser_(parser) {}

  // Text and entities of the answer's ids behind those prompt ids that the text is to begin with. logprobs: ln p of the
  // answer's tokens, NaN where unknown. stop: the text ends before the first of these that follows the prompt's words.
  Answer read(const std::vector<int32_t>& kept, const std::vector<int32_t>& answer, const std::vector<float>& logprobs,
              const std::vector<std::string>& stop = {}) const;
  // Whether the answer's text contains one of these.
  bool has_stop(const std::vector<int32_t>& kept, const std::vector<int32_t>& answer,
                const std::vector<std::string>& stop) const;
  // As AnswerParser's.
  size_t settled(std::string_view text) const { return parser_.settled(text); }

 private:
  size_t stop_at(const std::string& text, const std::vector<int32_t>& kept,
                 const std::vector<std::string>& stop) const;  // byte, npos where there is none

  Grounded parse(const std::vector<int32_t>& ids) const { return parser_.parse(tokenizer_, ids); }

  const Tokenizer& tokenizer_;
  const AnswerParser& parser_;
};

// The prompt's ids that the text begins with. keep_prompt: all that follow the last picture. Else those of an entity
// that the prompt left unfinished: <phrase> a hat</phrase> at its end, perhaps with the beginning of its boxes; none
// where the model has no location tokens.
std::vector<int32_t> kept_ids(const ModelInfo& info, const std::vector<int32_t>& prompt, bool keep_prompt);

using AnswerEvent = std::variant<std::string, AnswerEntity>;  // a stretch of text, or an entity that got its boxes

// Turns a growing answer into events whose texts add up to the final text. Three things hold text back: the last word
// (a later token may close up the blank before it, or lengthen it), what a stop text might still cut off (entities
// too), and what the parser does not call settled.
class AnswerStream {
 public:
  AnswerStream(const AnswerReader& reader, const std::vector<std::string>& stop);
  // The events that the newest token brings about.
  std::vector<AnswerEvent> feed(const std::vector<int32_t>& kept, const std::vector<int32_t>& answer,
                                const std::vector<float>& logprobs);
  // The rest, now that the answer is whole.
  std::vector<AnswerEvent> finish(const Answer& answer);

 private:
  void entity(const std::string& text, const AnswerEntity& entity, std::vector<AnswerEvent>& out);
  void advance(const std::string& text, size_t limit, std::vector<AnswerEvent>& out);

  const AnswerReader& reader_;
  size_t hold_ = 0;  // bytes
  std::string given_;
  size_t entities_ = 0;
};

}  // namespace ke
