// Many answers in one call.
#include <algorithm>
#include <chrono>
#include <list>

#include "base/limits.h"
#include "capi/request.h"
#include "engine/batch.h"

namespace ke::capi {
namespace {

using Clock = std::chrono::steady_clock;

// An answer in the making; never moved, the batch calls into it.
struct Open {
  Open(const ModelObject& model, Prepared p, uint64_t host_id)
      : prepared(std::move(p)),
        id(host_id),
        cancel(prepared.options.cancel, prepared.options.on_abort, prepared.options.user),
        run(*model.engine, prepared.request, watcher_of(prepared.options, prepared.frame)) {}
  Prepared prepared;
  uint64_t id;
  uint64_t key = 0;  // the batch's
  Clock::time_point start = Clock::now();
  CallCancel cancel;
  AnswerRun run;
};

class Batcher {
 public:
  Batcher(const ModelObject& model, const kosmos_batch_options& o)
      : model_(model),
        o_(o),
        cancel_(o.cancel, o.on_abort, o.user),
        batch_(model.engine->model(), *model.engine->tokenizer(), o.batch_size ? o.batch_size : limits::kDefaultBatch) {
  }

  void run() {
    bool more = true;
    while (true) {
      while (more && batch_.open() < batch_.size()) {
        cancel_.token.check();
        more = take_next();
      }
      if (batch_.open() == 0) return;
      for (Batch::Finished& f : batch_.step(&cancel_.token)) hand_out(f);
    }
  }

 private:
  bool take_next() {
    kosmos_request given{};
    given.struct_size = sizeof(given);
    if (o_.on_next(&given, o_.user) == 0) return false;
    deliver(given.id, [&]() -> void* {
      KE_CHECK(given.struct_size == sizeof(given), InvalidRequest, "kosmos_request.struct_size: expected ",
               sizeof(given), " as it was, got ", given.struct_size);
      Prepared prepared = prepare(model_, given);
      if (prepared.request.params.num_beams > 1) return answer(model_, prepared);
      Open& open = open_.emplace_back(model_, std::move(prepared), given.id);
      try {
        open.cancel.token.check();
        open.key = batch_.add(open.run.prompt(), open.run.params(), open.run.on_token(),
                              std::shared_ptr<const CancelToken>(std::shared_ptr<void>(), &open.cancel.token));
      } catch (...) {
        open_.pop_back();
        throw;
      }
      return nullptr;
    });
    return true;
  }

  void hand_out(Batch::Finished& f) {
    const auto at = std::find_if(open_.begin(), open_.end(), [&](const Open& o) { return o.key == f.key; });
    KE_ASSERT(at != open_.end());
    deliver(at->id, [&] {
      if (f.error) std::rethrow_exception(f.error);
      AnswerResult result = at->run.finish(std::move(f.generation));
      const double ms = std::chrono::duration<double, std::milli>(Clock::now() - at->start).count();
      return result_handle(std::move(result), model_, at->prepared.frame, ms);
    });
    open_.erase(at);
  }

  // Gives the host what body makes, a result handle or an error; nothing where it makes nullptr.
  template <class Body>
  void deliver(uint64_t id, Body&& body) {
    void* result = nullptr;
    kosmos_error* error = nullptr;
    const kosmos_status status = guarded(&error, [&] { result = body(); });
    if (status == KOSMOS_OK && result == nullptr) return;
    const int32_t end = o_.on_answer(id, static_cast<kosmos_result*>(result), error, o_.user);
    KE_CHECK(end == 0, Cancelled, "the answer callback ended the batch");
  }

  const ModelObject& model_;
  const kosmos_batch_options& o_;
  CallCancel cancel_;
  std::list<Open> open_;  // before batch_, which refers to them
  Batch batch_;
};

}  // namespace
}  // namespace ke::capi

using namespace ke;
using namespace ke::capi;

kosmos_status kosmos_batch(const kosmos_model* model, const kosmos_batch_options* options,
                           kosmos_error** error) noexcept {
  return guarded(error, [&] {
    const std::shared_ptr<ModelObject> m = model_of(model);
    const kosmos_batch_options o = required_struct(options, "kosmos_batch_options");
    KE_CHECK(o.batch_size >= 0 && o.batch_size <= limits::kMaxBatch, InvalidRequest, "batch_size: expected 1..",
             limits::kMaxBatch, " (0: ", limits::kDefaultBatch, "), got ", o.batch_size);
    KE_CHECK(o.on_next != nullptr, InvalidRequest, "on_next: expected a callback, got NULL");
    KE_CHECK(o.on_answer != nullptr, InvalidRequest, "on_answer: expected a callback, got NULL");
    Batcher(*m, o).run();
  });
}
