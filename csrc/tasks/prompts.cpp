#include "tasks/prompts.h"

#include <algorithm>
#include <iterator>

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

Segment image_segment(ImageHandle image) {
  Segment s;
  s.kind = Segment::Kind::Image;
  s.image = std::move(image);
  return s;
}

namespace {

constexpr std::string_view kPlaces[] = {kImagePlace, "{question}", "{phrase}", "{boxes}", "{answer}"};

bool is_place(std::string_view rest) {
  return std::any_of(std::begin(kPlaces), std::end(kPlaces), [&](auto place) { return rest.starts_with(place); });
}

// Bytes of the tag <...> that begins at text[at]: no blank, no '<' and no place of a format inside, not empty; 0 when
// there is none.
size_t tag_length(std::string_view text, size_t at) {
  for (size_t i = at + 1, length = 0; i < text.size(); i += length) {
    if (text[i] == '>') return i > at + 1 ? i + 1 - at : 0;
    length = utf8::character_length(text, i);
    if (length == 0 || text[i] == '<' || is_place(text.substr(i)) || utf8::is_blank(utf8::code_point(text, i, length)))
      return 0;
  }
  return 0;
}

// The first string of the text that would be a tag in raw text; empty where there is none.
std::string first_tag(const Tokenizer& tokenizer, std::string_view text) {
  if (text.find('<') == std::string_view::npos) return {};
  for (const int32_t id : tokenizer.encode_with_tags(text))
    if (tokenizer.type(id) == PieceType::Tag) return tokenizer.piece(id);
  return {};
}

}  // namespace

std::string without_image_place(std::string_view format) {
  std::string out(format);
  size_t at = out.find(kImagePlace);
  if (at == std::string::npos) return out;
  size_t end = at + kImagePlace.size();
  const size_t open = out.rfind('<', at);
  if (open != std::string::npos && at > open + 2 && tag_length(out, open) == at - open) {
    const std::string close = "</" + out.substr(open + 1, at - open - 1);
    if (out.compare(end, close.size(), close) == 0) at = open, end += close.size();
  }
  const size_t behind = std::min(out.find_first_not_of(" \n", end), out.size());
  return out.erase(at, behind - at);
}

void append_format(std::string_view format, const PromptValues& values, std::vector<PlanSegment>& out) {
  using Kind = PlanSegment::Kind;
  const size_t first = out.size();
  std::string run;
  const auto flush = [&] {
    if (!is_blank(run)) out.push_back({.kind = Kind::Text, .text = run});
    run.clear();
  };
  const std::pair<std::string_view, std::string_view> places[] = {
      {"{question}", values.question}, {"{phrase}", values.phrase}, {"{answer}", values.answer}};
  constexpr std::string_view kBoxes = "{boxes}";
  for (size_t at = 0; at < format.size();) {
    const std::string_view rest = format.substr(at);
    if (const size_t tag = rest[0] == '<' ? tag_length(format, at) : 0; tag > 0) {
      flush();
      if (out.size() > first && out.back().kind == Kind::Tags) {
        out.back().text += rest.substr(0, tag);
      } else {
        out.push_back({.kind = Kind::Tags, .text = std::string(rest.substr(0, tag))});
      }
      at += tag;
    } else if (rest.starts_with(kBoxes)) {
      flush();
      out.push_back({.kind = Kind::Boxes, .place = values.place});
      at += kBoxes.size();
    } else if (rest.starts_with(kImagePlace)) {
      flush();
      out.push_back({.kind = Kind::Image, .place = values.place});
      at += kImagePlace.size();
    } else if (const auto* found = std::find_if(std::begin(places), std::end(places),
                                                [&](const auto& p) { return rest.starts_with(p.first); });
               found != std::end(places)) {
      run += found->second;
      at += found->first.size();
    } else {
      run += format[at++];
    }
  }
  flush();
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
