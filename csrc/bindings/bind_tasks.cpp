// Plans of verbs and the rules of their options, which the C interface shares.
#include <nanobind/stl/optional.h>

#include "bindings/bind_common.h"
#include "engine/engine.h"
#include "tasks/answer.h"
#include "tasks/options.h"
#include "tasks/plan.h"
#include "tasks/prompts.h"
#include "tasks/rank.h"
#include "tasks/trained.h"

namespace ke {
namespace {

using Kind = PlanSegment::Kind;
using InfoMapping = nb::typed<nb::mapping, nb::str, nb::any>;
using SegmentTuple = nb::typed<nb::tuple, nb::str, nb::any>;
// segments, one object, Markdown, grammar, notes
using PlanTuple = std::tuple<nb::typed<nb::list, SegmentTuple>, bool, bool, bool, std::vector<std::string>>;

std::string text_at(nb::handle dict, const char* key) { return nb::cast<std::string>(dict[key]); }

// What plans need of a model, from its model_info: the process that makes a plan may not have the model.
ModelInfo info_of(const InfoMapping& given) {
  ModelInfo out;
  out.name = text_at(given, "name");
  out.trained_tasks = text_at(given, "trained_tasks");
  const nb::dict prompts = nb::cast<nb::dict>(given["prompts"]);
  out.prompts = {text_at(prompts, "caption"), text_at(prompts, "caption_detailed"), text_at(prompts, "question"),
                 text_at(prompts, "locate"),  text_at(prompts, "describe"),         text_at(prompts, "grounding"),
                 text_at(prompts, "read"),    text_at(prompts, "markdown")};
  out.prompts.chat = prompts.contains("system");
  if (out.prompts.chat) {
    out.prompts.system = text_at(prompts, "system");
    const nb::dict turns = nb::cast<nb::dict>(given["turns"]);
    out.prompts.lead = text_at(turns, "lead");
    out.prompts.closed = nb::cast<bool>(turns["closed"]);
    out.prompts.between = text_at(turns, "between");
    out.eos = nb::cast<int32_t>(given["eos"]);
    if (prompts.contains("follow_up")) out.prompts.follow_up = text_at(prompts, "follow_up");
    if (given.contains("stop")) out.stop = nb::cast<std::vector<std::string>>(given["stop"]);
  }
  if (!nb::object(given["grounding"]).is_none()) out.grounding.emplace();
  out.text_boxes = given.contains("text_boxes");
  if (given.contains("embedding")) out.embedding = nb::cast<int64_t>(given["embedding"]);
  if (prompts.contains("grounding_words")) out.prompts.grounding_words = text_at(prompts, "grounding_words");
  return out;
}

nb::tuple segment_tuple(const PlanSegment& s) {
  switch (s.kind) {
    case Kind::Text:
      return nb::make_tuple("text", s.text);
    case Kind::Tags:
      return nb::make_tuple("tags", s.text);
    case Kind::Image:
      return nb::make_tuple("image", s.place);
    case Kind::Boxes:
      return nb::make_tuple("boxes", s.place);
    case Kind::Ids:
      return nb::make_tuple("ids", s.ids);
    case Kind::Rows:
      return nb::make_tuple("rows", s.place);
  }
  return {};
}

PlanSegment to_plan_segment(nb::handle item) {
  const auto [kind, value] = nb::cast<std::pair<std::string, nb::object>>(item);
  if (kind == "text") return {.kind = Kind::Text, .text = utf8_of(value)};
  if (kind == "tags") return {.kind = Kind::Tags, .text = utf8_of(value)};
  KE_CHECK(kind == "image" || kind == "boxes" || kind == "rows", InvalidRequest, "segment kind '", kind,
           "' is none of text, tags, image, rows, boxes");
  return {.kind = kind == "image"  ? Kind::Image
                  : kind == "rows" ? Kind::Rows
                                   : Kind::Boxes,
          .place = nb::cast<size_t>(value)};
}

PlanTuple plan_tuple(Plan plan) {
  nb::list segments;
  for (const PlanSegment& s : plan.segments) segments.append(segment_tuple(s));
  return {segments, plan.one_object, plan.markdown, plan.grammar, std::move(plan.notes)};
}

PlanTuple bound_plan(const InfoMapping& info, std::string_view verb, std::optional<std::string> text,
                     const std::vector<std::pair<std::string, std::string>>& examples, bool ground, bool detailed,
                     bool markdown, bool choices, std::optional<std::string> format,
                     const std::vector<std::tuple<std::string, std::string, bool>>& turns, bool image) {
  VerbRequest request;
  request.verb = verb_named(verb);
  request.ground = ground;
  request.detailed = detailed;
  request.markdown = markdown;
  request.choices = choices;
  request.text = std::move(text);
  for (const auto& [question, answer] : examples) request.examples.push_back({question, answer});
  request.format = std::move(format);
  for (const auto& [question, answer, shown] : turns) request.turns.push_back({question, answer, shown});
  request.image = image;
  return plan_tuple(plan_verb(info_of(info), request));
}

PlanTuple bound_sequence(const InfoMapping& info, const nb::typed<nb::sequence, SegmentTuple>& given) {
  std::vector<PlanSegment> segments;
  for (nb::handle item : given) segments.push_back(to_plan_segment(item));
  return plan_tuple(plan_sequence(info_of(info), std::move(segments)));
}

nb::list expand(std::string_view format, std::string_view question, std::string_view phrase) {
  std::vector<PlanSegment> segments;
  append_format(format, {.question = question, .phrase = phrase}, segments);
  nb::list out;
  for (const PlanSegment& s : segments) out.append(segment_tuple(s));
  return out;
}

void bound_together(int32_t num_beams, double temperature, bool top_k, bool top_p, bool length_penalty, bool stop,
                    bool choices, bool grammar, bool grounds) {
  check_together({num_beams, temperature, top_k, top_p, length_penalty, stop, choices, grammar, grounds});
}

}  // namespace

void bind_tasks(nb::module_& m) {
  m.def(
      "plan_verb", &bound_plan, nb::arg("info"), nb::arg("verb"), nb::arg("text").none(), nb::arg("examples"),
      nb::arg("ground"), nb::arg("detailed"), nb::arg("markdown"), nb::arg("choices"), nb::arg("template").none(),
      nb::arg("turns") = std::vector<std::tuple<std::string, std::string, bool>>(), nb::arg("image") = true,
      "(segments, one object, Markdown, grammar by default, notes) of a verb; info: the model's model_info. A segment "
      "is\n"
      "('text', text), ('tags', text), ('image', place) or ('boxes', place): an example's number, then the request's\n"
      "own. Raises InvalidRequest.");
  m.def("plan_sequence", &bound_sequence, nb::arg("info"), nb::arg("segments"),
        "The same of a free sequence of such segments. Raises InvalidRequest.");
  m.def("check_together", &bound_together, nb::kw_only(), nb::arg("num_beams"), nb::arg("temperature"),
        nb::arg("top_k"), nb::arg("top_p"), nb::arg("length_penalty"), nb::arg("stop"), nb::arg("choices"),
        nb::arg("grammar"), nb::arg("grounds"), "Raises InvalidRequest where options contradict each other.");
  m.def("request_kinds", &request_kinds, "Kinds of requests that a model may be trained for, as (name, words).");
  m.def(
      "kept_ids",
      [](const Engine& e, const std::vector<int32_t>& prompt, bool keep_prompt) {
        return kept_ids(e.model().info(), prompt, keep_prompt);
      },
      nb::arg("engine"), nb::arg("prompt_ids"), nb::arg("keep_prompt"),
      "The prompt's ids that the answer's text begins with: all behind the last picture, or those of an unfinished\n"
      "entity.");
  m.def(
      "check_choices",
      [](const Engine& e, const std::vector<std::string>& choices, const std::vector<std::string>& stop,
         int32_t max_tokens) {
        const AnswerReader reader(*e.tokenizer(), *e.model().info().answers);
        return reader.check_choices({}, choices, stop, max_tokens);
      },
      nb::arg("engine"), nb::arg("choices"), nb::arg("stop"), nb::arg("max_tokens"),
      "Tokens of the longest choice. Raises InvalidRequest where an answer could not be exactly a choice.");
  m.def(
      "split_template",
      [](std::string_view text) {
        ScoreTemplate t = split_template(text);
        return std::pair(std::move(t.before), std::move(t.after));
      },
      nb::arg("template"), "What stands before and behind {text}. Raises InvalidRequest unless there is exactly one.");
  m.def(
      "default_template",
      [](const InfoMapping& info) {
        ScoreTemplate t = default_template(info_of(info));
        return std::pair(std::move(t.before), std::move(t.after));
      },
      nb::arg("info"), "The same of the template that is used where the caller gives none.");
  nb::cast<nb::module_>(m.attr("testing"))
      .def("expand_format", &expand, nb::arg("format"), nb::arg("question") = "", nb::arg("phrase") = "",
           "Segments of a prompt format.");
}

}  // namespace ke
