#include "tasks/plan.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/limits.h"
#include "tasks/prompts.h"
#include "tasks/trained.h"
#include "text/utf8.h"

namespace ke {
namespace {

using Kind = PlanSegment::Kind;

constexpr std::array kVerbs = {
    VerbTraits{.verb = Verb::Caption,
               .name = "caption",
               .takes_ground = true,
               .takes_detailed = true,
               .takes_examples = true,
               .takes_template = true},
    VerbTraits{.verb = Verb::Ground, .name = "ground", .text = "prompt"},
    VerbTraits{.verb = Verb::Locate,
               .name = "locate",
               .text = "phrase",
               .place = "{phrase}",
               .needs_text = true,
               .takes_template = true,
               .takes_lead_in = false},
    VerbTraits{.verb = Verb::Describe,
               .name = "describe",
               .place = "{boxes}",
               .takes_box = true,
               .takes_ground = true,
               .ground = true,
               .takes_examples = true,
               .takes_template = true},
    VerbTraits{.verb = Verb::Ask,
               .name = "ask",
               .text = "question",
               .place = "{question}",
               .needs_text = true,
               .takes_ground = true,
               .takes_choices = true,
               .takes_examples = true,
               .takes_turns = true,
               .takes_template = true},
    VerbTraits{.verb = Verb::Read, .name = "read", .takes_markdown = true, .takes_lead_in = false},
};

void need_grounding(const ModelInfo& model, std::string_view what) {
  KE_CHECK(model.grounding, InvalidRequest, what, ": ", kNoGrounding);
}

void need_boxes(const ModelInfo& model, std::string_view what) {
  if (!model.text_boxes) need_grounding(model, what);
}

bool wants_boxes(const VerbRequest& r) { return r.ground || r.verb == Verb::Ground; }

std::string tasks_of(const ModelInfo& model) {
  std::string out;
  for (const std::string& task : model.tasks()) out += out.empty() ? task : ", " + task;
  return out;
}

const std::string& format_of(const ModelInfo& model, const VerbRequest& r) {
  if (r.format) return *r.format;
  if (model.text_boxes && wants_boxes(r)) return model.prompts.grounding;
  switch (r.verb) {
    case Verb::Caption:
    case Verb::Ground:
      return r.detailed ? model.prompts.caption_detailed : model.prompts.caption;
    case Verb::Locate:
      return model.prompts.locate;
    case Verb::Describe:
      return model.prompts.describe;
    case Verb::Ask:
      return model.prompts.question;
    case Verb::Read:
      return r.markdown ? model.prompts.markdown : model.prompts.read;
  }
  KE_ASSERT(false);
}

size_t count_of(std::string_view place, std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(place, at)) != std::string_view::npos; at += place.size()) ++count;
  return count;
}

// The caller's own format has the verb's place, once, and no other.
void check_format(const VerbTraits& traits, std::string_view format) {
  check_words("template", format);
  for (const std::string_view place : {"{question}", "{phrase}", "{boxes}", "{answer}"}) {
    const size_t wanted = place == traits.place ? 1 : 0;
    KE_CHECK(count_of(place, format) == wanted, InvalidRequest, "template: expected ",
             wanted == 1 ? "exactly one " : "no ", place, ", got '", format, "'");
  }
  KE_CHECK(count_of(kImagePlace, format) <= 1, InvalidRequest, "template: expected at most one {image}, got '", format,
           "'");
}

void check_request(const ModelInfo& model, const VerbTraits& traits, const VerbRequest& r) {
  if (r.verb == Verb::Describe) need_grounding(model, traits.name);  // the caller's box is made of location tokens
  if (r.verb == Verb::Locate) need_boxes(model, traits.name);
  if (wants_boxes(r)) need_boxes(model, "ground");
  KE_CHECK(!model.text_boxes || !wants_boxes(r) || (!r.format && !r.detailed), InvalidRequest,
           "ground: this model has ", "one prompt for boxes, which goes with neither a template nor a length");
  KE_CHECK(!r.ground || traits.takes_ground, InvalidRequest, "ground: ", traits.name, " does not take it");
  KE_CHECK(!r.detailed || traits.takes_detailed, InvalidRequest, "detailed: ", traits.name, " does not take it");
  KE_CHECK(!r.markdown || traits.takes_markdown, InvalidRequest, "markdown: ", traits.name, " does not take it");
  KE_CHECK(!r.choices || traits.takes_choices, InvalidRequest, "choices: ", traits.name, " does not take them");
  KE_CHECK(!r.choices || !r.ground, InvalidRequest,
           "choices and ground contradict each other: an answer from a list has no boxes");
  KE_CHECK(!r.text || !traits.text.empty(), InvalidRequest, "text: ", traits.name, " does not take one");
  KE_CHECK(r.text || !traits.needs_text, InvalidRequest, traits.text, ": expected a text, got none");
  if (r.text) check_words(traits.text, *r.text);
  KE_CHECK(!r.format || traits.takes_template, InvalidRequest, "template: ", traits.name, " does not take one");
  if (r.format) check_format(traits, *r.format);
  KE_CHECK(r.examples.empty() || traits.takes_examples, InvalidRequest, "examples: ", traits.name,
           " does not take them");
  KE_CHECK(r.examples.size() <= limits::kMaxExamples, InvalidRequest, "examples: expected at most ",
           limits::kMaxExamples, ", got ", r.examples.size());
  for (size_t i = 0; i < r.examples.size(); i++) {
    const std::string name = concat("examples[", i, "]");
    if (r.verb == Verb::Ask) check_words(name, r.examples[i].text);
    check_words(name, r.examples[i].answer);
  }
  KE_CHECK((r.turns.empty() && r.image) || traits.takes_turns, InvalidRequest, "turns: ", traits.name,
           " takes no conversation");
  KE_CHECK(r.turns.size() <= limits::kMaxTurns, InvalidRequest, "turns: expected at most ", limits::kMaxTurns, ", got ",
           r.turns.size());
  for (size_t i = 0; i < r.turns.size(); i++) {
    check_words(concat("turns[", i, "].question"), r.turns[i].text);
    const size_t bad = utf8::first_ill_formed(r.turns[i].answer);  // a model may have said nothing
    KE_CHECK(bad == std::string_view::npos, InvalidRequest, "turns[", i, "].answer: not well-formed UTF-8 at byte ",
             bad);
  }
}

// Which kinds of requests it is (tasks/trained.h).
std::vector<std::string_view> kinds_of(const ModelInfo& model, const VerbRequest& r) {
  const auto words = [&](std::string_view text) {
    const std::string_view kind = kind_of_words(model.prompts, text, true);
    return kind.empty() ? "prompt" : kind;
  };
  std::vector<std::string_view> kinds;
  switch (r.verb) {
    case Verb::Caption:
      kinds.push_back(r.format ? words(*r.format) : r.detailed ? "caption_long" : "caption");
      break;
    case Verb::Ground:
      kinds.push_back(words(r.text ? *r.text : model.prompts.caption));
      break;
    case Verb::Locate:
      kinds.push_back("locate");
      break;
    case Verb::Describe:
      kinds.push_back(r.ground ? "describe" : "describe_plain");
      break;
    case Verb::Ask:
      kinds.push_back(r.ground ? "ask_boxes" : "ask");
      break;
    case Verb::Read:
      kinds.push_back(r.markdown ? "read_markdown" : "read");
      break;
  }
  if (r.format && r.verb != Verb::Caption) kinds.push_back("prompt");
  if (!r.examples.empty()) kinds.push_back("examples");
  if (!r.turns.empty()) kinds.push_back("turns");
  return kinds;
}

void add_note(const ModelInfo& model, const std::vector<std::string_view>& kinds, Plan& plan) {
  std::string note = untrained_note(model.name, model.trained_tasks, kinds);
  if (!note.empty()) plan.notes.push_back(std::move(note));
}

void append_text(std::string text, std::vector<PlanSegment>& out) {
  out.push_back({.kind = Kind::Text, .text = std::move(text)});
}

}  // namespace

const VerbTraits& traits_of(Verb verb) { return kVerbs[static_cast<size_t>(verb)]; }

Verb verb_named(std::string_view name) {
  for (const VerbTraits& t : kVerbs)
    if (t.name == name) return t.verb;
  fail(ErrorCode::InvalidRequest, "'", name, "' is none of caption, ground, locate, describe, ask, read");
}

Plan plan_verb(const ModelInfo& model, const VerbRequest& r) {
  KE_CHECK(model.embedding == 0, InvalidRequest, traits_of(r.verb).name, ": ", kOnlyCompares);
  check_request(model, traits_of(r.verb), r);
  const std::string& format = format_of(model, r);
  const bool own_words = r.verb == Verb::Ground && r.text && !model.text_boxes;
  KE_CHECK(!format.empty() || own_words, InvalidRequest, traits_of(r.verb).name, r.markdown ? " as Markdown: " : ": ",
           kNoPrompt, "; its tasks are ", tasks_of(model));
  Plan plan;
  plan.one_object = r.verb == Verb::Locate && model.grounding;
  plan.markdown = r.markdown;
  plan.grammar = model.grounding && !r.choices;
  std::vector<PlanSegment>& out = plan.segments;
  if (!model.prompts.system.empty()) append_text(model.prompts.system, out);
  const auto ask = [&](size_t place, std::string_view format_here, const PromptValues& values, bool image = true) {
    if (image && !has_image_place(format_here)) out.push_back({.kind = Kind::Image, .place = place});
    if (!model.text_boxes && (wants_boxes(r) || r.verb == Verb::Locate))
      append_format(model.prompts.grounding, {}, out);
    append_format(format_here, values, out);
  };
  // A chat's answer begins a text of its own behind a format that ends with a blank, as the model's own answers do; not
  // where a text ends answers, which are one text with what is around them. Else the two are one text, where an answer
  // by itself would begin with a fresh word mark, or with none.
  const auto ask_and_answer = [&](size_t place, std::string_view format_here, const PromptValues& values, bool image,
                                  bool join) {
    const bool apart = model.prompts.chat && model.stop.empty() && format_here.ends_with(' ');
    const bool joined = join && !apart;
    ask(place,
        joined ? concat(format_here, lead_behind(format_here, model.prompts), "{answer}") : std::string(format_here),
        values, image);
    if (apart) out.push_back({.kind = Kind::Ids});  // ends the text
    if (!joined) append_text(std::string(values.answer), out);
    if (!model.prompts.chat) return;
    if (model.prompts.closed && model.stop.empty()) out.push_back({.kind = Kind::Ids, .ids = {model.eos}});
    if (!model.prompts.between.empty()) append_text(model.prompts.between, out);
  };
  // What stands at {question}: words of the model's own where boxes are wanted and the caller has none.
  const bool own_question = model.text_boxes && wants_boxes(r);
  const auto question = [&](std::string_view given) {
    return given.empty() && own_question ? std::string_view(model.prompts.grounding_words) : given;
  };
  for (size_t i = 0; i < r.examples.size(); i++) {
    const Example& e = r.examples[i];
    ask_and_answer(i, format, {.question = question(e.text), .answer = e.answer, .place = i}, /*image=*/true,
                   /*join=*/r.verb == Verb::Caption || model.prompts.chat);
  }
  size_t own = r.examples.size();
  // A blank parts a question from the answer before it, where no end of an answer does.
  const auto question_format = [&](bool image) {
    const bool follows = own > 0 && !model.prompts.chat;
    if (!image && !r.format && !model.prompts.follow_up.empty()) return model.prompts.follow_up;
    return (follows && !image ? " " : "") + (image ? format : without_image_place(format));
  };
  for (const Turn& turn : r.turns) {
    ask_and_answer(own, question_format(turn.image), {.question = turn.text, .answer = turn.answer, .place = own},
                   turn.image, /*join=*/true);
    ++own;
  }
  const std::string_view text = question(r.text ? *r.text : std::string_view());
  KE_CHECK(!own_question || !text.empty(), InvalidRequest, traits_of(r.verb).name, ": ", kNoPrompt);
  if (own_words) {
    ask(own, "", {.place = own});
    append_text(*r.text, out);
  } else {
    ask(own, question_format(r.image), {.question = text, .phrase = text, .place = own}, r.image);
  }
  add_note(model, kinds_of(model, r), plan);
  return plan;
}

Plan plan_sequence(const ModelInfo& model, std::vector<PlanSegment> segments) {
  KE_CHECK(model.embedding == 0, InvalidRequest, kOnlyCompares);
  KE_CHECK(!segments.empty() && segments.size() <= limits::kMaxSegments, InvalidRequest, "segments: expected 1..",
           limits::kMaxSegments, " images, texts and boxes, got ", segments.size());
  for (const PlanSegment& s : segments)
    if (s.kind == Kind::Boxes) need_grounding(model, "box");
  Plan plan;
  const bool image = segments.size() == 2 && segments[0].kind == Kind::Image;
  const PlanSegment& last = segments.back();
  std::string_view kind;  // an image with another verb's words, or a question alone, is that verb's request
  if ((image || segments.size() == 1) && (last.kind == Kind::Text || last.kind == Kind::Tags))
    kind = kind_of_words(model.prompts, last.text, image);
  add_note(model, {kind.empty() ? "generate" : kind}, plan);
  plan.segments = std::move(segments);
  return plan;
}

std::vector<Segment> filled(std::vector<PlanSegment> segments, const std::vector<ImageHandle>& images,
                            const std::vector<Cells>& boxes) {
  std::vector<Segment> out;
  for (PlanSegment& s : segments) {
    Segment made;
    switch (s.kind) {
      case Kind::Text:
        made.text = std::move(s.text);
        break;
      case Kind::Tags:
        made.kind = Segment::Kind::Tags;
        made.text = std::move(s.text);
        break;
      case Kind::Image:
        made = image_segment(images.at(s.place));
        break;
      case Kind::Rows:
        made = image_segment(images.at(s.place));
        made.kind = Segment::Kind::Rows;
        break;
      case Kind::Boxes:
        made.kind = Segment::Kind::Boxes;
        made.cells = boxes.at(s.place);
        break;
      case Kind::Ids:
        made.kind = Segment::Kind::Ids;
        made.ids = std::move(s.ids);
        break;
    }
    out.push_back(std::move(made));
  }
  return out;
}

}  // namespace ke
