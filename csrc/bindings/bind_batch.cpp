// Several answers at once; the GIL is released while a pass is computed.
#include <nanobind/stl/shared_ptr.h>

#include "bindings/bind_answer.h"
#include "bindings/bind_engine.h"
#include "engine/batch.h"

namespace ke {
namespace {

struct EngineBatch {
  EngineBatch(std::shared_ptr<Engine> e, int size)
      : engine(std::move(e)), batch(engine->model(), *engine->tokenizer(), size) {}
  EngineBatch(const EngineBatch&) = delete;
  std::shared_ptr<Engine> engine;  // outlives the batch
  Batch batch;
};

uint64_t add(EngineBatch& b, const SegmentList& segments, const GenerateParams& params, TokenCallback on_token,
             std::shared_ptr<CancelToken> cancel) {
  const std::vector<Segment> s = to_segments(segments);
  OnToken callback = to_on_token(std::move(on_token));
  nb::gil_scoped_release release;
  return b.batch.add(b.engine->prompt(s), params, std::move(callback), std::move(cancel));
}

// The run is kept until its answer has ended.
uint64_t add_run(EngineBatch& b, std::shared_ptr<BoundRun> run, std::shared_ptr<CancelToken> cancel) {
  nb::gil_scoped_release release;
  OnToken on_token = run->run.on_token();
  if (on_token) on_token = [run, watch = std::move(on_token)](int32_t id, float logprob) { return watch(id, logprob); };
  return b.batch.add(run->run.prompt(), run->run.params(), std::move(on_token), std::move(cancel));
}

Generation result(Batch::Finished& f) {
  if (f.error) std::rethrow_exception(f.error);
  return f.generation;
}

}  // namespace

void bind_batch(nb::module_& m) {
  nb::class_<Batch::Finished>(m, "Finished", "An answer of a batch that ended.")
      .def_ro("key", &Batch::Finished::key)
      .def("result", &result, "The Generation; raises what ended the answer.");

  nb::class_<EngineBatch>(m, "Batch", "Several answers at once, of one engine; for one thread at a time.")
      .def(nb::init<std::shared_ptr<Engine>, int>(), nb::arg("engine"), nb::arg("size"))
      .def_prop_ro("size", [](const EngineBatch& b) { return b.batch.size(); })
      .def_prop_ro("open", [](const EngineBatch& b) { return b.batch.open(); })
      .def("add", &add, nb::arg("segments"), nb::arg("params"), nb::arg("on_token").none() = nb::none(),
           nb::arg("cancel").none() = nb::none())
      .def("add", &add_run, nb::arg("run"), nb::arg("cancel").none() = nb::none())
      .def(
          "step", [](EngineBatch& b, const CancelToken* cancel) { return b.batch.step(cancel); },
          nb::arg("cancel").none() = nb::none(), nb::call_guard<nb::gil_scoped_release>())
      .def("clear", [](EngineBatch& b) { b.batch.clear(); }, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace ke
