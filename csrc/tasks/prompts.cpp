#include "tasks/prompts.h"

#include <algorithm>

#include "base/error.h"
#include "text/utf8.h"

namespace ke {

bool is_blank(std::string_view text) {
  for (size_t at = 0, length = 0; at < text.size(); at += length) {
    length = utf8::character_length(text, at);
    if (length == 0 || !utf8::is_blank(utf8::code_point(text, at, length))) return false;
  }
  return true;
}

Segment image_segment(EncodedPicture image) {
  Segment s;
  s.kind = Segment::Kind::Image;
  s.image = std::move(image);
  return s;
}

namespace {

// Bytes of the tag <...> that begins at text[at]: no blank and no '<' inside, not empty; 0 when there is none.
size_t tag_length(std::string_view text, size_t at) {
  for (size_t i = at + 1, length = 0; i < text.size(); i += length) {
    if (text[i] == '>') return i > at + 1 ? i + 1 - at : 0;
    length = utf8::character_length(text, i);
    if (length == 0 || text[i] == '<' || utf8::is_blank(utf8::code_point(text, i, length))) return 0;
  }
  return 0;
}

Segment text_segment(Segment::Kind kind, std::string text) {
  Segment s;
  s.kind = kind;
  s.text = std::move(text);
  return s;
}

void need_grounding(const ModelInfo& model, const char* what) {
  KE_CHECK(model.grounding, InvalidRequest, what, ": ", kNoGrounding);
}

// The first string of the text that would be a tag in raw text; empty where there is none.
std::string first_tag(const Tokenizer& tokenizer, std::string_view text) {
  if (text.find('<') == std::string_view::npos) return {};
  for (const int32_t id : tokenizer.encode_with_tags(text))
    if (tokenizer.type(id) == PieceType::Tag) return tokenizer.piece(id);
  return {};
}

std::vector<Segment> begin(const ModelInfo& model, EncodedPicture image, bool ground) {
  if (ground) need_grounding(model, "ground");
  std::vector<Segment> out{image_segment(std::move(image))};
  if (ground) append_format(model.prompts.grounding, {}, out);
  return out;
}

}  // namespace

void append_format(std::string_view format, const PromptValues& values, std::vector<Segment>& out) {
  const size_t first = out.size();
  std::string run;
  const auto flush = [&] {
    if (!is_blank(run)) out.push_back(text_segment(Segment::Kind::Text, run));
    run.clear();
  };
  const auto is_place = [&](size_t at, std::string_view name) { return format.substr(at, name.size()) == name; };
  constexpr std::string_view kQuestion = "{question}", kPhrase = "{phrase}", kBoxes = "{boxes}";
  for (size_t at = 0; at < format.size();) {
    if (const size_t tag = format[at] == '<' ? tag_length(format, at) : 0; tag > 0) {
      flush();
      if (out.size() > first && out.back().kind == Segment::Kind::Tags) {
        out.back().text += format.substr(at, tag);
      } else {
        out.push_back(text_segment(Segment::Kind::Tags, std::string(format.substr(at, tag))));
      }
      at += tag;
    } else if (is_place(at, kQuestion)) {
      run += values.question;
      at += kQuestion.size();
    } else if (is_place(at, kPhrase)) {
      run += values.phrase;
      at += kPhrase.size();
    } else if (is_place(at, kBoxes)) {
      flush();
      Segment s;
      s.kind = Segment::Kind::Boxes;
      s.cells = values.cells;
      out.push_back(std::move(s));
      at += kBoxes.size();
    } else {
      run += format[at++];
    }
  }
  flush();
}

std::vector<Segment> caption_prompt(const ModelInfo& model, EncodedPicture image, bool detailed, bool ground) {
  std::vector<Segment> out = begin(model, std::move(image), ground);
  out.push_back(text_segment(Segment::Kind::Text, detailed ? model.prompts.caption_detailed : model.prompts.caption));
  return out;
}

std::vector<Segment> ground_prompt(const ModelInfo& model, EncodedPicture image, std::string_view words) {
  std::vector<Segment> out = begin(model, std::move(image), true);
  out.push_back(text_segment(Segment::Kind::Text, words.empty() ? model.prompts.caption : std::string(words)));
  return out;
}

std::vector<Segment> locate_prompt(const ModelInfo& model, EncodedPicture image, std::string_view phrase) {
  need_grounding(model, "locate");
  std::vector<Segment> out = begin(model, std::move(image), true);
  append_format(model.prompts.locate, {.question = {}, .phrase = phrase, .cells = {}}, out);
  return out;
}

std::vector<Segment> describe_prompt(const ModelInfo& model, EncodedPicture image, std::pair<int32_t, int32_t> cells,
                                     bool ground) {
  need_grounding(model, "describe");
  std::vector<Segment> out = begin(model, std::move(image), ground);
  append_format(model.prompts.describe, {.question = {}, .phrase = {}, .cells = {cells}}, out);
  return out;
}

std::vector<Segment> ask_prompt(const ModelInfo& model, EncodedPicture image, std::string_view question, bool ground) {
  std::vector<Segment> out = begin(model, std::move(image), ground);
  append_format(model.prompts.question, {.question = question, .phrase = {}, .cells = {}}, out);
  return out;
}

std::vector<std::string> tag_notes(const Tokenizer& tokenizer, const std::vector<std::string>& texts,
                                   const std::vector<std::string>& stop) {
  std::vector<std::string> out;
  const auto add = [&](std::string_view text, const char* what) {
    const std::string tag = first_tag(tokenizer, text);
    if (tag.empty()) return;
    std::string note = concat("'", tag, "' ", what);
    if (std::find(out.begin(), out.end(), note) == out.end()) out.push_back(std::move(note));
  };
  for (const std::string& text : texts)
    add(text, "in a text is read as plain characters, not as a tag: generate takes raw text, in which it is one");
  for (const std::string& text : stop)
    add(text, "in a stop text never comes: stop texts are looked for in the text without tags");
  return out;
}

void check_words(std::string_view name, std::string_view text) {
  const size_t bad = utf8::first_ill_formed(text);
  KE_CHECK(bad == std::string_view::npos, InvalidRequest, name, ": not well-formed UTF-8 at byte ", bad);
  KE_CHECK(!is_blank(text), InvalidRequest, name, ": expected some text, got ", text.empty() ? "none" : "only blanks");
}

}  // namespace ke
