// Prompt formats and the reading of answers, which the C interface shares.
#include <cmath>
#include <optional>

#include <nanobind/stl/optional.h>

#include "bindings/bind_common.h"
#include "engine/engine.h"
#include "tasks/answer.h"
#include "tasks/prompts.h"

namespace ke {
namespace {

std::optional<double> known(double score) { return std::isnan(score) ? std::nullopt : std::optional(score); }

// (text, [(phrase, start, end, score, phrase score, [(x1, y1, x2, y2)], [(cell, cell)], [score])])
nb::tuple answer_tuple(const Answer& answer) {
  nb::list entities;
  for (const AnswerEntity& e : answer.entities) {
    nb::list boxes, cells, scores;
    for (const AnswerBox& b : e.boxes) {
      boxes.append(nb::make_tuple(b.box.x1, b.box.y1, b.box.x2, b.box.y2));
      cells.append(b.cells);
      scores.append(known(b.score));
    }
    entities.append(
        nb::make_tuple(e.phrase, e.start, e.end, known(e.score), known(e.phrase_score), boxes, cells, scores));
  }
  return nb::make_tuple(answer.text, entities);
}

AnswerReader reader_of(const Engine& e) { return {*e.tokenizer(), *e.model().info().answers}; }

std::vector<std::pair<std::string, std::string>> expand(std::string_view format, std::string_view question,
                                                        std::string_view phrase) {
  std::vector<Segment> segments;
  append_format(format, {.question = question, .phrase = phrase, .cells = {}}, segments);
  std::vector<std::pair<std::string, std::string>> out;
  for (Segment& s : segments)
    out.emplace_back(s.kind == Segment::Kind::Tags    ? "tags"
                     : s.kind == Segment::Kind::Boxes ? "boxes"
                                                      : "text",
                     std::move(s.text));
  return out;
}

}  // namespace

void bind_tasks(nb::module_& m) {
  m.def("expand_format", &expand, nb::arg("format"), nb::arg("question") = "", nb::arg("phrase") = "",
        "Segments of a prompt format: ('tags', text), ('text', text), and ('boxes', '') for its place of boxes.");
  m.def(
      "kept_ids",
      [](const Engine& e, const std::vector<int32_t>& prompt, bool keep_prompt) {
        return kept_ids(e.model().info(), prompt, keep_prompt);
      },
      nb::arg("engine"), nb::arg("prompt_ids"), nb::arg("keep_prompt"),
      "The prompt's ids that the answer's text begins with: all behind the last picture, or those of an unfinished\n"
      "entity.");
  m.def(
      "read_answer",
      [](const Engine& e, const std::vector<int32_t>& kept, const std::vector<int32_t>& answer,
         const std::vector<float>& logprobs, const std::vector<std::string>& stop) {
        return answer_tuple(reader_of(e).read(kept, answer, logprobs, stop));
      },
      nb::arg("engine"), nb::arg("kept"), nb::arg("answer"), nb::arg("logprobs"), nb::arg("stop"),
      "(text, [(phrase, start, end, score, phrase score, [(x1, y1, x2, y2)], [(cell, cell)], [score])]) of an answer\n"
      "behind the kept ids; scores are None where unknown. Raises InvalidRequest.");
  m.def(
      "answer_has_stop",
      [](const Engine& e, const std::vector<int32_t>& kept, const std::vector<int32_t>& answer,
         const std::vector<std::string>& stop) { return reader_of(e).has_stop(kept, answer, stop); },
      nb::arg("engine"), nb::arg("kept"), nb::arg("answer"), nb::arg("stop"),
      "Whether the answer's text contains one of the stop texts. Raises InvalidRequest.");
  m.def(
      "settled_text",
      [](const Engine& e, const std::string& text) { return text.substr(0, reader_of(e).settled(text)); },
      nb::arg("engine"), nb::arg("text"),
      "The beginning of an answer's text that no later token can change, its last word apart.");
}

}  // namespace ke
