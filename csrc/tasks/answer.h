// Token ids of an answer -> text, entities with scores, and stream events. The parsing itself is text/answer_text.h.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/prompt.h"
#include "models/answer_parser.h"
#include "models/model.h"
#include "text/answer_text.h"
#include "text/tokenizer.h"

namespace ke {

struct AnswerBox {
  Box box;                            // fractions of the image
  std::pair<int32_t, int32_t> cells;  // kNoCells where it is not made of them
  double score;  // exp(mean ln p) of its location tokens, at most 1; NaN where one of them is not of the answer
};

struct AnswerEntity {
  std::string phrase;           // empty where the model wrote a box without a phrase
  int64_t start, end;           // code points of Answer::text, as parse_grounded gives them
  size_t begin_byte, end_byte;  // the same in bytes, inside the text and in order
  std::vector<AnswerBox> boxes;
  double score;         // of all its location tokens
  double phrase_score;  // exp(sum ln p) of the phrase's tokens; NaN where not all of them are of the answer
  double phrase_mean;   // exp(mean ln p) of them; NaN likewise
  double found_score = std::numeric_limits<double>::quiet_NaN();  // p that boxes follow the caller's phrase; else NaN

  // What min_score looks at; NaN: unknown.
  double sureness() const { return std::isnan(phrase_score) ? found_score : phrase_score; }
  // Whether it is kept; one whose sureness is unknown is.
  bool reaches(double min_score) const { return !(sureness() < min_score); }
};

struct Answer {
  std::string text;
  std::vector<AnswerEntity> entities;
  std::vector<std::string> notes;  // what should be known about it
  // The last entity's words ended with the answer or before a stop text, not by what the model wrote behind them.
  bool ends_in_entity = false;
};

// What is needed to read answers of one model; a view, both must outlive it.
class AnswerReader {
 public:
  AnswerReader(const Tokenizer& tokenizer, const AnswerParser& parser, const AnswerContext& context = {})
      : tokenizer_(tokenizer), parser_(parser), context_(context) {}

  // Text and entities of the answer's ids behind those prompt ids that the text is to begin with. logprobs: ln p of the
  // answer's tokens, NaN where unknown. stop: the text ends before the first of these that follows the prompt's words.
  // An entity that it cuts off keeps the words before it if its boxes came before them, as those of a page's lines do.
  Answer read(const std::vector<int32_t>& kept, const std::vector<int32_t>& answer, const std::vector<float>& logprobs,
              const std::vector<std::string>& stop = {}) const;
  // The tokens of the longest of `choices`, each of which is to be the whole of an answer behind `kept`. InvalidRequest
  // naming the choice where the text of such an answer would not be the choice itself, character for character (the
  // tokenizer folds blanks, rewrites or does not know characters, <...> is taken for a tag), or where a stop text or
  // max_tokens would cut it off.
  int32_t check_choices(const std::vector<int32_t>& kept, const std::vector<std::string>& choices,
                        const std::vector<std::string>& stop, int32_t max_tokens) const;
  // To read an answer as it grows.
  std::unique_ptr<AnswerText> open() const { return parser_.open(tokenizer_, context_); }

 private:
  const Tokenizer& tokenizer_;
  const AnswerParser& parser_;
  const AnswerContext context_;
};

// The prompt's ids that the text begins with. keep_prompt: all that follow the last image. Else those of an entity
// that the prompt left unfinished: <phrase> a hat</phrase> at its end, perhaps with the beginning of its boxes; none
// where the model has no location tokens, and where the answer is one of given choices (`exact`).
std::vector<int32_t> kept_ids(const ModelInfo& info, const std::vector<int32_t>& prompt, bool keep_prompt,
                              bool exact = false);
// The same of a prompt that knows where its images stand: a placeholder in raw text is none of them.
std::vector<int32_t> kept_ids(const ModelInfo& info, const Prompt& prompt, bool keep_prompt, bool exact);

using AnswerEvent = std::variant<std::string, AnswerEntity>;  // a stretch of text, or an entity that got its boxes

// Turns a growing answer into events whose texts add up to the final text. Three things hold text back: the last word
// (a later token may close up the blank before it, or lengthen it), what a stop text might still cut off (entities
// too), and what the model's parser does not call settled.
class AnswerStream {
 public:
  // kept: as AnswerReader::read. What the reader refers to must outlive it.
  AnswerStream(const AnswerReader& reader, const std::vector<int32_t>& kept, const std::vector<std::string>& stop);
  // Reads the newest token; -> whether a stop text stands behind the prompt's words. InvalidRequest for an id outside
  // the vocabulary.
  bool push(int32_t id, float logprob);
  // What came about since the last call.
  std::vector<AnswerEvent> events();
  // The rest, now that the answer is whole.
  std::vector<AnswerEvent> finish(const Answer& answer);

 private:
  void advance(std::string_view text, size_t limit, std::vector<AnswerEvent>& out);
  bool finds_stop();

  std::vector<std::string> stop_;
  size_t hold_ = 0;  // bytes
  std::unique_ptr<AnswerText> answer_;
  size_t kept_ids_;
  int64_t kept_code_points_;
  std::vector<float> logprobs_;
  std::string given_;  // the beginning of the text
  size_t entities_ = 0;
};

}  // namespace ke
