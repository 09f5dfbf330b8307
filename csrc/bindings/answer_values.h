// Answers and their events as Python values.
#pragma once
#include <cmath>
#include <optional>

#include <nanobind/stl/optional.h>

#include "bindings/bind_common.h"
#include "tasks/answer.h"

namespace ke {

inline std::optional<double> known(double score) { return std::isnan(score) ? std::nullopt : std::optional(score); }

// (phrase, start, end, score, phrase score, found score, [(x1, y1, x2, y2)], [(cell, cell)], [score])
inline nb::tuple entity_tuple(const AnswerEntity& e) {
  nb::list boxes, cells, scores;
  for (const AnswerBox& b : e.boxes) {
    boxes.append(nb::make_tuple(b.box.x1, b.box.y1, b.box.x2, b.box.y2));
    cells.append(b.cells);
    scores.append(known(b.score));
  }
  return nb::make_tuple(e.phrase, e.start, e.end, known(e.score), known(e.phrase_score), known(e.found_score), boxes,
                        cells, scores);
}

inline nb::tuple answer_tuple(const Answer& answer) {
  nb::list entities;
  for (const AnswerEntity& e : answer.entities) entities.append(entity_tuple(e));
  return nb::make_tuple(answer.text, entities);
}

// str for text, a tuple for an entity.
inline nb::object event_value(const AnswerEvent& event) {
  if (const std::string* text = std::get_if<std::string>(&event)) return nb::cast(*text);
  return entity_tuple(std::get<AnswerEntity>(event));
}

inline nb::list event_list(const std::vector<AnswerEvent>& events) {
  nb::list out;
  for (const AnswerEvent& event : events) out.append(event_value(event));
  return out;
}

}  // namespace ke
