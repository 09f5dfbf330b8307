// A verb with its arguments -> what the engine is asked, and a result handle for what it says.
#pragma once
#include "capi/options.h"
#include "capi/result.h"

namespace ke::capi {

struct Prepared {
  kosmos_options options{};  // as given, with defaults for what the caller does not know
  AnswerRequest request;
  Frame frame;
};

// InvalidRequest for everything that the verb's function would refuse.
Prepared prepare(const ModelObject& model, const kosmos_request& request);

// Hands the growing answer to the host's callback. `frame` must outlive it.
AnswerWatcher watcher_of(const kosmos_options& o, const Frame& frame);

// The handle of a finished answer; ms: all it took.
void* result_handle(AnswerResult result, const ModelObject& model, const Frame& frame, double ms);

// Computes one answer; its result handle.
void* answer(const ModelObject& model, const Prepared& prepared);

}  // namespace ke::capi
