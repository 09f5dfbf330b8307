// An answer in the making as a Python object.
#pragma once
#include <memory>
#include <utility>

#include "engine/engine.h"
#include "tasks/run.h"

namespace ke {

struct BoundRun {
  BoundRun(std::shared_ptr<Engine> e, AnswerRequest request, AnswerWatcher watcher)
      : engine(std::move(e)), run(*engine, std::move(request), std::move(watcher)) {}
  std::shared_ptr<Engine> engine;  // outlives the run
  AnswerRun run;
};

}  // namespace ke
