// Reads the ids of a page's answer as they arrive: text lines with boxes,
// <bbox><x_1><y_2><x_3><y_4></bbox>text, or Markdown.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/answer_text.h"
#include "text/stream_decoder.h"

namespace ke {

// The tokenizer must outlive it.
//
// Lines (KOSMOS-2.5's <ocr> task; unilm kosmos-2.5 inference.py, post_process): a line is the text behind a box up to
// the next one, without blanks at its ends; coordinates are pixels of the resized image. The text is all lines, joined
// by "\n". A line is an entity, whose phrase it is, if its box is of the form above and, cut at the image's edge, not
// empty. Other tags vanish, as transformers' skip_special_tokens has it.
// Markdown (<md>): "<br>" is a line break, lines have no blanks at their ends, and there is at most one empty line
// between two others.
class PageReader final : public AnswerText {
 public:
  // width, height: of the image that coordinates refer to; 0: there is none, and so no entity.
  PageReader(const Tokenizer& tokenizer, int64_t width, int64_t height, bool markdown);
  void push(int32_t id) override;
  void finish() override;
  std::string_view text() const override { return text_; }
  size_t settled() const override { return text_.size(); }
  size_t last_word() const override;
  size_t unchanged() override;
  size_t byte_of(int64_t code_point) const override;
  size_t entity_count() const override { return entities_.size(); }
  Entity entity(size_t i) const override { return entities_[i]; }
  std::vector<std::string> notes() const override;
  bool ends_in_entity() const override { return ends_in_line_; }

 private:
  enum class BoxState { None, Open, Whole, Broken };

  void tag(std::string_view name, int32_t index);
  bool coordinate(std::string_view name, int32_t index);
  void append(std::string_view text);
  void character(std::string_view c);
  void flush_held();
  void emit(std::string_view c);
  void end_line();

  const Tokenizer* tokenizer_;
  const double width_, height_;
  const bool markdown_;
  StreamDecoder decoder_;
  std::string text_;            // never ends in a blank
  std::vector<size_t> starts_;  // the byte of each of its code points
  std::string blanks_;          // behind text_, until something follows them
  std::string held_;            // the beginning of "<br>"
  size_t breaks_ = 0;           // Markdown: line breaks behind text_
  size_t known_ = 0;            // bytes at the last call of unchanged()
  int32_t next_index_ = 0;      // of the next id

  // The line that is being read.
  BoxState box_ = BoxState::None;
  std::array<double, 4> corners_{};
  std::array<int32_t, 4> corner_tokens_{};
  size_t corner_count_ = 0;
  bool has_text_ = false;
  size_t begin_ = 0;  // code point and byte of its text
  size_t begin_byte_ = 0;
  std::pair<int32_t, int32_t> tokens_{};  // of its text
  std::vector<Entity> entities_;
  size_t broken_ = 0, blank_ = 0, cut_ = 0;  // for notes()
  bool ends_in_line_ = false;
};

}  // namespace ke
