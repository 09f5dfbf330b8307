#include "models/answer_parser.h"

#include <algorithm>

#include "text/utf8.h"

namespace ke {
namespace {

std::string stripped(const std::string& text) {
  size_t begin = text.size(), end = 0;
  for (size_t at = 0, length = 0; at < text.size(); at += length) {
    length = utf8::character_length(text, at);
    if (utf8::is_blank(utf8::code_point(text, at, length))) continue;
    begin = std::min(begin, at);
    end = at + length;
  }
  return end == 0 ? std::string() : text.substr(begin, end - begin);
}

class PlainAnswers : public AnswerParser {
 public:
  Grounded parse(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) const override {
    return {stripped(tokenizer.decode(ids)), {}};
  }
  size_t settled(std::string_view text) const override { return text.size(); }
};

class GroundedAnswers : public AnswerParser {
 public:
  explicit GroundedAnswers(int64_t bins) : bins_(bins) { check_bins(bins); }

  Grounded parse(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) const override {
    Grounded out = parse_grounded(tokenizer, ids, bins_);
    for (Entity& e : out.entities)  // parse_grounded names boxes without a phrase by their cells
      if (e.phrase_tokens.first == e.phrase_tokens.second) e.phrase.clear();
    return out;
  }
  // From a literal '<' on a later '>' removes text.
  size_t settled(std::string_view text) const override { return std::min(text.find('<'), text.size()); }

 private:
  int64_t bins_;
};

}  // namespace

std::shared_ptr<const AnswerParser> plain_answers() { return std::make_shared<PlainAnswers>(); }
std::shared_ptr<const AnswerParser> grounded_answers(int64_t bins) { return std::make_shared<GroundedAnswers>(bins); }

}  // namespace ke
