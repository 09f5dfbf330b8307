// Prompt formats and texts of callers: segments of a format, checks, and notes about tags.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "tasks/plan.h"
#include "text/tokenizer.h"

namespace ke {

// What fills the places of a format.
struct PromptValues {
  std::string_view question{}, phrase{}, answer{};
  size_t place = 0;  // of the image and the boxes
};

constexpr std::string_view kImagePlace = "{image}";
// A format for a question without an image: without the place, a pair of tags around it (<Img>{image}</Img>) and the
// blanks behind it.
std::string without_image_place(std::string_view format);
inline bool has_image_place(std::string_view format) { return format.find(kImagePlace) != std::string_view::npos; }

// What stands between a format and words that go on from it: the model's lead, a blank in most, but nothing right
// behind the image, where a format without words is, too, nor where the format itself ends with a blank or a line feed.
inline std::string_view lead_behind(std::string_view format, const PromptFormats& formats) {
  const bool behind_image = format.empty() || format.ends_with(kImagePlace);
  return behind_image || format.ends_with(' ') || format.ends_with('\n') ? std::string_view() : formats.lead;
}

// Appends a format's segments: its tags are tags, its words and the values are plain text, joined where they touch
// (the tokenizer starts every segment with a fresh word mark); stretches of blanks alone are left out.
void append_format(std::string_view format, const PromptValues& values, std::vector<PlanSegment>& out);

Segment image_segment(ImageHandle image);

// What the caller should know about tags that are spelled in plain texts and stop texts, where they are none: a line
// for each text, but not twice the same.
std::vector<std::string> tag_notes(const Tokenizer& tokenizer, const std::vector<std::string>& texts,
                                   const std::vector<std::string>& stop);

// InvalidRequest unless the text is well-formed UTF-8 and not blank; name says in the message which text it is.
void check_words(std::string_view name, std::string_view text);

// Whether there is nothing but blanks (utf8::is_blank) in it.
bool is_blank(std::string_view text);

}  // namespace ke
