// Reads the ids of an answer whose boxes are text: <p>a cat</p> {<12><5><80><100>}<delim>{<1><2><3><4>}.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/answer_text.h"
#include "text/stream_decoder.h"
#include "text/token_places.h"

namespace ke {

// The tokenizer must outlive it. A copy is independent.
//
// Coordinates are 0..100, hundredths of the image (MiniGPT-v2 demo_v2.py); other numbers make no box, and what is no
// box stays text. <p>, </p>, <delim> and boxes vanish from the text, a phrase's blanks in front of its boxes, too. The
// boxes behind a phrase, with nothing but blanks and <delim> between them, are those of one entity; a box without a
// phrase in front is an entity without one. A corner that is not left of and above the other one stays as it is.
class BoxTextReader final : public AnswerText {
 public:
  explicit BoxTextReader(const Tokenizer& tokenizer);
  void push(int32_t id) override;
  void finish() override;
  std::string_view text() const override { return text_; }
  size_t settled() const override { return text_.size(); }  // what may become a tag is not shown yet
  size_t last_word() const override;
  size_t unchanged() override { return std::exchange(known_, text_.size()); }
  size_t byte_of(int64_t code_point) const override;
  size_t entity_count() const override { return entities_.size(); }
  Entity entity(size_t i) const override { return entities_[i]; }

 private:
  static constexpr size_t kNone = std::string::npos;

  void append(std::string_view text);
  void character(std::string_view c);
  void take(std::string_view tag);
  void box(std::string_view tag);
  void emit(std::string_view c);
  void end_entity();

  const Tokenizer* tokenizer_;
  StreamDecoder decoder_;
  TokenPlaces places_;
  int32_t next_index_ = 0;      // of the next id
  size_t offset_ = 0;           // bytes of the raw text that were read
  std::string held_;            // the end of them, which may begin a tag
  std::string text_;            // never begins or ends with a blank
  std::vector<size_t> starts_;  // the byte of each of its code points
  std::string blanks_;          // behind text_, until something follows them
  bool at_box_ = false;         // nothing but blanks came since a box without a phrase
  size_t known_ = 0;            // bytes at the last call of unchanged()

  // The phrase that is being read or has been, and its boxes.
  enum class Phrase { None, Open, Closed };
  Phrase phrase_ = Phrase::None;
  size_t first_ = kNone;                         // code point where it begins
  std::pair<size_t, size_t> raw_{kNone, kNone};  // its bytes in the raw text
  Entity entity_;
  std::vector<Entity> entities_;
};

}  // namespace ke
