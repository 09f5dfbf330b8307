// Prompt formats and the reading of answers, which the C interface shares.
#include <nanobind/stl/shared_ptr.h>

#include "bindings/answer_values.h"
#include "engine/engine.h"
#include "tasks/answer.h"
#include "tasks/prompts.h"
#include "tasks/rank.h"
#include "tasks/trained.h"

namespace ke {
namespace {

AnswerReader reader_of(const Engine& e) { return {*e.tokenizer(), *e.model().info().answers}; }

void bind_stream(nb::module_& m) {
  nb::class_<AnswerStream>(m, "AnswerStream", "Events of a growing answer, whose texts add up to its text.")
      .def(
          "__init__",
          [](AnswerStream* self, const Engine& e, const std::vector<int32_t>& kept,
             const std::vector<std::string>& stop) { new (self) AnswerStream(reader_of(e), kept, stop); },
          nb::arg("engine"), nb::arg("kept"), nb::arg("stop"), nb::keep_alive<1, 2>())
      .def("push", &AnswerStream::push, nb::arg("id"), nb::arg("logprob"),
           "Reads the newest token; whether the answer's text contains a stop text now. Raises InvalidRequest.")
      .def(
          "events", [](AnswerStream& s) { return event_list(s.events()); },
          "What came about since the last call: str for text, and entities in the form of read_answer.")
      .def(
          "finish",
          [](AnswerStream& s, const Engine& e, const std::vector<int32_t>& kept, const std::vector<int32_t>& answer,
             const std::vector<float>& logprobs, const std::vector<std::string>& stop) {
            return event_list(s.finish(reader_of(e).read(kept, answer, logprobs, stop)));
          },
          nb::arg("engine"), nb::arg("kept"), nb::arg("answer"), nb::arg("logprobs"), nb::arg("stop"),
          "The rest of the events of the whole answer, which read_answer gives for these.");
}

std::vector<std::pair<std::string, std::string>> expand(std::string_view format, std::string_view question,
                                                        std::string_view phrase) {
  std::vector<PlanSegment> segments;
  append_format(format, {.question = question, .phrase = phrase}, segments);
  std::vector<std::pair<std::string, std::string>> out;
  for (PlanSegment& s : segments)
    out.emplace_back(s.kind == PlanSegment::Kind::Tags    ? "tags"
                     : s.kind == PlanSegment::Kind::Boxes ? "boxes"
                                                          : "text",
                     std::move(s.text));
  return out;
}

Ranking rank(const Engine& e, std::shared_ptr<ImageEmbedding> image, std::vector<std::string> texts, std::string before,
             std::string after, bool mean, const CancelToken* cancel) {
  const RankRequest request{std::move(image), std::move(texts), {std::move(before), std::move(after)}, mean};
  nb::gil_scoped_release release;
  return rank_texts(e, request, cancel);
}

void bind_rank(nb::module_& m) {
  nb::class_<RankedText>(m, "RankedText", "How likely one of the texts is.")
      .def_ro("index", &RankedText::index)
      .def_ro("score", &RankedText::score)
      .def_ro("share", &RankedText::share)
      .def_ro("logprob_sum", &RankedText::sum)
      .def_ro("logprob_mean", &RankedText::mean)
      .def_ro("token_ids", &RankedText::ids)
      .def_ro("logprobs", &RankedText::logprobs);
  nb::class_<Ranking>(m, "Ranking", "Texts by falling likelihood.")
      .def_ro("rows", &Ranking::rows)
      .def_ro("notes", &Ranking::notes)
      .def_ro("tokens", &Ranking::tokens)
      .def_ro("reused", &Ranking::reused);
  m.def("rank", &rank, nb::arg("engine"), nb::arg("image").none(), nb::arg("texts"), nb::arg("before"),
        nb::arg("after"), nb::arg("mean"), nb::arg("cancel").none() = nb::none(),
        "Ranks texts, with before and after around each, behind the image or none. Raises InvalidRequest,\n"
        "ContextTooLong, Cancelled.");
  m.def(
      "split_template",
      [](std::string_view text) {
        ScoreTemplate t = split_template(text);
        return std::pair(std::move(t.before), std::move(t.after));
      },
      nb::arg("template"), "What stands before and behind {text}. Raises InvalidRequest unless there is exactly one.");
}

}  // namespace

void bind_tasks(nb::module_& m) {
  m.def("expand_format", &expand, nb::arg("format"), nb::arg("question") = "", nb::arg("phrase") = "",
        "Segments of a prompt format: ('tags', text), ('text', text), and ('boxes', '') for its place of boxes.");
  m.def("request_kinds", &request_kinds, "Kinds of requests that a model may be trained for, as (name, words).");
  m.def("untrained_note", &untrained_note, nb::arg("name"), nb::arg("trained_tasks"), nb::arg("kinds"),
        "A note that the model's list lacks some of these kinds of requests, or ''.");
  m.def(
      "kind_of_words",
      [](std::string caption, std::string detailed, std::string question, std::string grounding, std::string_view words,
         bool picture) {
        PromptFormats f;
        f.caption = std::move(caption);
        f.caption_detailed = std::move(detailed);
        f.question = std::move(question);
        f.grounding = std::move(grounding);
        return kind_of_words(f, words, picture);
      },
      nb::arg("caption"), nb::arg("caption_detailed"), nb::arg("question"), nb::arg("grounding"), nb::arg("words"),
      nb::arg("picture"), "Which kind of request these words are with these formats; '' for words of one's own.");
  m.def(
      "kept_ids",
      [](const Engine& e, const std::vector<int32_t>& prompt, bool keep_prompt, bool exact) {
        return kept_ids(e.model().info(), prompt, keep_prompt, exact);
      },
      nb::arg("engine"), nb::arg("prompt_ids"), nb::arg("keep_prompt"), nb::arg("exact") = false,
      "The prompt's ids that the answer's text begins with: all behind the last picture, or those of an unfinished\n"
      "entity (exact: none).");
  m.def("tag_notes", &tag_notes, nb::arg("tokenizer"), nb::arg("texts"), nb::arg("stop"),
        "Notes about tags that are spelled in plain texts and stop texts, where they are none.");
  m.def(
      "check_choices",
      [](const Engine& e, const std::vector<int32_t>& kept, const std::vector<std::string>& choices,
         const std::vector<std::string>& stop,
         int32_t max_tokens) { return reader_of(e).check_choices(kept, choices, stop, max_tokens); },
      nb::arg("engine"), nb::arg("kept"), nb::arg("choices"), nb::arg("stop"), nb::arg("max_tokens"),
      "Tokens of the longest choice. Raises InvalidRequest where an answer behind the kept ids could not be exactly a\n"
      "choice.");
  m.def(
      "read_answer",
      [](const Engine& e, const std::vector<int32_t>& kept, const std::vector<int32_t>& answer,
         const std::vector<float>& logprobs, const std::vector<std::string>& stop) {
        return answer_tuple(reader_of(e).read(kept, answer, logprobs, stop));
      },
      nb::arg("engine"), nb::arg("kept"), nb::arg("answer"), nb::arg("logprobs"), nb::arg("stop"),
      "(text, [(phrase, start, end, score, phrase score, [(x1, y1, x2, y2)], [(cell, cell)], [score])]) of an answer\n"
      "behind the kept ids; scores are None where unknown. Raises InvalidRequest.");
  bind_stream(m);
  bind_rank(m);
}

}  // namespace ke
