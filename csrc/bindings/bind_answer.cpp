// Answers in the making, and rankings. The GIL is released while anything is computed.
#include <nanobind/stl/shared_ptr.h>

#include "bindings/answer_values.h"
#include "bindings/bind_answer.h"
#include "bindings/bind_engine.h"
#include "tasks/rank.h"

namespace ke {
namespace {

// Or None, both.
using EventCallback = nb::typed<nb::object, nb::typed<nb::callable, nb::any(AnswerEventValue, size_t)>>;
using PollCallback = nb::typed<nb::object, nb::typed<nb::callable, nb::any()>>;

std::function<bool(const AnswerEvent&, size_t)> to_on_event(nb::object callable) {
  if (callable.is_none()) return {};
  return [held = shared_object(std::move(callable))](const AnswerEvent& event, size_t tokens) {
    nb::gil_scoped_acquire acquire;
    (*held)(event_value(event), tokens);
    return true;
  };
}

std::function<bool(int32_t, float)> to_poll(nb::object callable) {
  if (callable.is_none()) return {};
  return [held = shared_object(std::move(callable))](int32_t, float) {
    nb::gil_scoped_acquire acquire;
    (*held)();
    return true;
  };
}

std::shared_ptr<BoundRun> new_run(std::shared_ptr<Engine> engine, const SegmentList& segments,
                                  const GenerateParams& params, std::vector<std::string> stop, bool keep_prompt,
                                  bool one_object, bool page, bool markdown, double min_score,
                                  std::vector<std::string> notes, EventCallback on_event, PollCallback poll) {
  AnswerRequest request;
  request.segments = to_segments(segments);
  request.params = params;
  request.stop = std::move(stop);
  request.keep_prompt = keep_prompt;
  request.one_object = one_object;
  request.page = page;
  request.markdown = markdown;
  request.min_score = min_score;
  request.notes = std::move(notes);
  AnswerWatcher watcher{to_poll(std::move(poll)), to_on_event(std::move(on_event))};
  nb::gil_scoped_release release;
  return std::make_shared<BoundRun>(std::move(engine), std::move(request), std::move(watcher));
}

Normalize normalize_named(const std::string& name) {
  if (name == "sum") return Normalize::Sum;
  if (name == "mean") return Normalize::Mean;
  KE_CHECK(name == "characters", InvalidRequest, "normalize: expected 'sum', 'mean' or 'characters', got '", name, "'");
  return Normalize::Characters;
}

Ranking rank(const Engine& e, std::shared_ptr<ImageEmbedding> image, std::vector<std::string> texts, std::string before,
             std::string after, const std::string& normalize, const CancelToken* cancel) {
  const RankRequest request{
      std::move(image), std::move(texts), {std::move(before), std::move(after)}, normalize_named(normalize)};
  nb::gil_scoped_release release;
  return rank_texts(e, request, cancel);
}

Ranking rank_behind(const Engine& e, const SegmentList& segments, std::vector<std::string> texts,
                    const std::string& normalize, const CancelToken* cancel) {
  RankRequest request;
  request.prompt = to_segments(segments);
  KE_CHECK(!request.prompt.empty(), InvalidRequest, "segments: expected at least one");
  request.texts = std::move(texts);
  request.normalize = normalize_named(normalize);
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
      .def_ro("greedy", &RankedText::greedy)
      .def_ro("token_ids", &RankedText::ids)
      .def_ro("logprobs", &RankedText::logprobs);
  nb::class_<Ranking>(m, "Ranking", "Texts by falling likelihood.")
      .def_ro("rows", &Ranking::rows)
      .def_ro("notes", &Ranking::notes)
      .def_ro("tokens", &Ranking::tokens)
      .def_ro("reused", &Ranking::reused);
  m.def("rank", &rank, nb::arg("engine"), nb::arg("image").none(), nb::arg("texts"), nb::arg("before"),
        nb::arg("after"), nb::arg("normalize"), nb::arg("cancel").none() = nb::none(),
        "Ranks texts, with before and after around each, behind the image or none. Raises InvalidRequest,\n"
        "ContextTooLong, Cancelled.");
  m.def("rank_behind", &rank_behind, nb::arg("engine"), nb::arg("segments"), nb::arg("texts"), nb::arg("normalize"),
        nb::arg("cancel").none() = nb::none(), "As rank, behind any segments.");
}

}  // namespace

void bind_answer(nb::module_& m) {
  nb::class_<AnswerResult>(m, "AnswerResult", "A whole answer.")
      .def_prop_ro("text", [](const AnswerResult& r) { return r.answer.text; })
      .def_prop_ro(
          "entities",
          [](const AnswerResult& r) {
            std::vector<AnswerEntityTuple> out;
            for (const AnswerEntity& e : r.answer.entities) out.push_back(entity_tuple(e));
            return out;
          },
          "[(phrase, start, end, score, phrase score, phrase mean, found score, [(x1, y1, x2, y2)], [(cell, cell) or "
          "None], [score])];\n"
          "scores are None where unknown.")
      .def_ro("generation", &AnswerResult::generation)
      .def_prop_ro("finish_reason", [](const AnswerResult& r) { return reason_name(r.reason); })
      .def_ro("cut_line", &AnswerResult::cut_line,
              "Of a page: the model had not closed the last line when the answer ended.")
      .def_ro("notes", &AnswerResult::notes);

  nb::class_<BoundRun>(m, "AnswerRun", "One answer from its request to its reply; for one thread at a time.")
      .def(nb::new_(&new_run), nb::arg("engine"), nb::arg("segments"), nb::arg("params"), nb::arg("stop"),
           nb::arg("keep_prompt"), nb::arg("one_object"), nb::arg("page"), nb::arg("markdown"), nb::arg("min_score"),
           nb::arg("notes"), nb::arg("on_event").none() = nb::none(), nb::arg("poll").none() = nb::none(),
           "on_event: called with str for text or a tuple for an entity, as AnswerResult.entities has them, and with\n"
           "the number of tokens so far. poll: called without arguments at every token. Neither may refer to this\n"
           "object. Raises InvalidRequest.")
      .def(
          "run",
          [](BoundRun& r, const CancelToken* cancel) {
            return r.run.finish(r.engine->generate(r.run.prompt(), r.run.params(), r.run.on_token(), cancel));
          },
          nb::arg("cancel").none() = nb::none(), nb::call_guard<nb::gil_scoped_release>(),
          "The answer, computed alone. Raises InvalidRequest, ContextTooLong, Cancelled.")
      .def(
          "finish", [](BoundRun& r, const Generation& g) { return r.run.finish(g); }, nb::arg("generation"),
          nb::call_guard<nb::gil_scoped_release>(), "The answer, computed in a batch.");
  bind_rank(m);
}

}  // namespace ke
