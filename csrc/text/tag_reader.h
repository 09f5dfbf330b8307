// Reads text with tags as it grows: the text without the tags, and the entities. Every byte is read once.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/grounding.h"

namespace ke {

// An entity and the bytes of the text with tags that it comes from.
struct FoundEntity {
  Entity entity;  // start and end count from the first visible code point, blanks at the beginning included
  size_t phrase_begin = 0, phrase_end = 0;
  std::vector<std::pair<size_t, size_t>> locations;  // per box: where its two location tags begin
  bool has_phrase = false;
};

class TagReader {
 public:
  // bins: 1..1024, else InvalidRequest; 0: the text has no tags, so that all of it is visible.
  explicit TagReader(int64_t bins);
  void append(std::string_view text);  // well-formed UTF-8

  // The visible text so far: without tags, without blanks at its ends. A '<' that may begin a tag is visible until
  // it does.
  std::string_view text() const;
  int64_t leading() const;  // code points cut off before text()
  // The byte of text() where its code point of that number begins; its ends for numbers outside.
  size_t byte_of(int64_t code_point) const;
  size_t last_word() const;  // the byte of the last blank (U+0020) in text(); 0 if there is none
  size_t literal() const;    // the byte of the first '<' in text(), its size if there is none
  size_t unchanged();        // bytes of text() that are unchanged since the last call; first: 0
  const std::vector<FoundEntity>& entities() const { return entities_; }
  size_t bytes() const { return offset_; }  // of all text appended

 private:
  static constexpr size_t kNone = std::string::npos;
  enum class Tag { Phrase, PhraseEnd, Object, ObjectEnd, Delimiter, Location };
  enum class Expect { Nothing, PhraseText, PhraseEnd, Object, First, Second, MoreOrEnd };
  struct Extent {                   // of the visible text
    size_t begin = kNone, end = 0;  // bytes of its first character that is no blank, and after its last
    size_t blank = kNone;           // the last U+0020
    size_t word = kNone;            // the last U+0020 before `end`
    size_t literal = kNone;         // the first '<'
    int64_t count = 0;              // code points
    int64_t leading = 0;            // before `begin`
  };
  struct Location {
    int64_t cell;
    size_t at;
  };

  void show(std::string_view character);
  void hide_open_tag();
  void lex(char byte);  // a byte inside a possible tag
  void take(Tag tag);
  void take_text(std::string_view character);
  void take_match();

  int64_t bins_;
  size_t offset_ = 0;
  std::string visible_;
  Extent extent_;
  std::vector<size_t> marks_;  // byte of every 64th visible code point
  size_t open_ = kNone;        // byte of a '<' without '>' in visible_
  Extent before_open_;
  size_t unchanged_ = 0;

  std::string lexeme_;  // of a possible tag, without the digits of a location
  bool in_digits_ = false;
  int digits_ = 0;
  int64_t cell_ = 0;          // saturates far outside every grid
  size_t lexeme_at_ = 0;      // byte of the whole text
  int64_t lexeme_count_ = 0;  // visible code points before it

  Expect expect_ = Expect::Nothing;
  FoundEntity match_;
  std::vector<std::pair<Location, Location>> pairs_;
  Location first_{};
  std::vector<FoundEntity> entities_;
};

}  // namespace ke
