// The verbs as prompts: which segments in which order. The words come from the model file. What a caller
// types is data: it never becomes a tag.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "models/info.h"

namespace ke {

// What fills the places of a format.
struct PromptValues {
  std::string_view question, phrase;
  std::vector<std::pair<int32_t, int32_t>> cells;
};

// Appends a format's segments: its tags are tags, its words and the values are plain text, joined where they touch
// (the tokenizer starts every segment with a fresh word mark); stretches of blanks alone are left out.
void append_format(std::string_view format, const PromptValues& values, std::vector<Segment>& out);

using EncodedPicture = std::shared_ptr<const ImageEmbedding>;
Segment image_segment(EncodedPicture image);

// InvalidRequest where boxes are asked for or given and the model has no location tokens.
std::vector<Segment> caption_prompt(const ModelInfo& model, EncodedPicture image, bool detailed, bool ground);
// words empty: the caption's.
std::vector<Segment> ground_prompt(const ModelInfo& model, EncodedPicture image, std::string_view words);
std::vector<Segment> locate_prompt(const ModelInfo& model, EncodedPicture image, std::string_view phrase);
std::vector<Segment> describe_prompt(const ModelInfo& model, EncodedPicture image, std::pair<int32_t, int32_t> cells,
                                     bool ground);
std::vector<Segment> ask_prompt(const ModelInfo& model, EncodedPicture image, std::string_view question, bool ground);

// What the caller should know about tags that are spelled in plain texts and stop texts, where they are none: a line
// for each text, but not twice the same.
std::vector<std::string> tag_notes(const Tokenizer& tokenizer, const std::vector<std::string>& texts,
                                   const std::vector<std::string>& stop);

// InvalidRequest unless the text is well-formed UTF-8 and not blank; name says in the message which text it is.
void check_words(std::string_view name, std::string_view text);

// Whether there is nothing but blanks (utf8::is_blank) in it.
bool is_blank(std::string_view text);

}  // namespace ke
