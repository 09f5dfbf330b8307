// Answers and their events as Python values.
#pragma once
#include <cmath>
#include <optional>
#include <variant>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/variant.h>

#include "bindings/bind_common.h"
#include "tasks/answer.h"

namespace ke {

inline std::optional<double> known(double score) { return std::isnan(score) ? std::nullopt : std::optional(score); }

// Corners, as fractions of the image.
using BoxTuple = std::tuple<double, double, double, double>;
// Of its two corners; none where a box is not made of cells.
using CellPair = std::optional<std::pair<int32_t, int32_t>>;
// (phrase, start, end, score, phrase score, phrase mean, found score, [(x1, y1, x2, y2)], [(cell, cell)], [score])
using AnswerEntityTuple =
    std::tuple<std::string, int64_t, int64_t, std::optional<double>, std::optional<double>, std::optional<double>,
               std::optional<double>, std::vector<BoxTuple>, std::vector<CellPair>, std::vector<std::optional<double>>>;
using AnswerEventValue = std::variant<std::string, AnswerEntityTuple>;

inline AnswerEntityTuple entity_tuple(const AnswerEntity& e) {
  std::vector<BoxTuple> boxes;
  std::vector<CellPair> cells;
  std::vector<std::optional<double>> scores;
  for (const AnswerBox& b : e.boxes) {
    boxes.emplace_back(b.box.x1, b.box.y1, b.box.x2, b.box.y2);
    cells.push_back(b.cells == kNoCells ? std::nullopt : CellPair(b.cells));
    scores.push_back(known(b.score));
  }
  return {e.phrase,
          e.start,
          e.end,
          known(e.score),
          known(e.phrase_score),
          known(e.phrase_mean),
          known(e.found_score),
          std::move(boxes),
          cells,
          scores};
}

inline std::pair<std::string, std::vector<AnswerEntityTuple>> answer_tuple(const Answer& answer) {
  std::vector<AnswerEntityTuple> entities;
  for (const AnswerEntity& e : answer.entities) entities.push_back(entity_tuple(e));
  return {answer.text, std::move(entities)};
}

// str for text, a tuple for an entity.
inline AnswerEventValue event_value(const AnswerEvent& event) {
  if (const std::string* text = std::get_if<std::string>(&event)) return *text;
  return entity_tuple(std::get<AnswerEntity>(event));
}

inline std::vector<AnswerEventValue> event_list(const std::vector<AnswerEvent>& events) {
  std::vector<AnswerEventValue> out;
  for (const AnswerEvent& event : events) out.push_back(event_value(event));
  return out;
}

}  // namespace ke
