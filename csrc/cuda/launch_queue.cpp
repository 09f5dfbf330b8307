#include "cuda/launch_queue.h"

namespace ke::cuda {

constexpr size_t kMaxPlainSteps = 8;  // a pass as short as that is not worth a graph
constexpr size_t kMostPasses = 64;    // that are remembered

void LaunchQueue::add(const char* what, const Key& key, std::function<cudaError_t(cudaStream_t)> launch) {
  if (failed_) std::rethrow_exception(failed_);
  put(key_, what);  // the words of an operation are one constant: they tell it from the others
  key_.insert(key_.end(), key.begin(), key.end());
  steps_.push_back({what, std::move(launch)});
}

void LaunchQueue::run(const std::vector<Step>& steps) {
  for (const Step& step : steps) check(step.launch(stream_), step.what);
}

cudaGraphExec_t LaunchQueue::capture(const std::vector<Step>& steps) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaError_t error = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
  if (error == cudaSuccess) {
    for (const Step& step : steps)
      if ((error = step.launch(stream_)) != cudaSuccess) break;
    const cudaError_t ended = cudaStreamEndCapture(stream_, &graph);  // the stream must not stay in this state
    if (error == cudaSuccess) error = ended;
    if (error == cudaSuccess) error = cudaGraphInstantiate(&exec, graph, 0);
    if (graph) cudaGraphDestroy(graph);
  }
  cudaGetLastError();  // so that the launches that follow do not report it
  return error == cudaSuccess ? exec : nullptr;
}

void LaunchQueue::start(const std::vector<Step>& steps, Key key) {
  if (steps.size() <= kMaxPlainSteps) return run(steps);
  if (passes_.size() >= kMostPasses && !passes_.contains(key)) forget();
  Pass& pass = passes_[std::move(key)];
  pass.times++;
  if (pass.times == 1) return run(steps);
  if (!pass.graph) pass.graph = capture(steps);
  if (pass.graph && cudaGraphLaunch(pass.graph, stream_) == cudaSuccess) return;
  cudaGetLastError();
  run(steps);  // a device that is lost says so here
}

void LaunchQueue::flush() {
  if (failed_) std::rethrow_exception(failed_);
  if (steps_.empty()) return;
  std::vector<Step> steps;
  Key key;
  steps.swap(steps_);
  key.swap(key_);
  try {
    start(steps, std::move(key));
  } catch (...) {
    fail(std::current_exception());
    throw;
  }
}

void LaunchQueue::fail(std::exception_ptr why) noexcept {
  if (!failed_) failed_ = std::move(why);
  steps_.clear();
  key_.clear();
}

void LaunchQueue::forget() {
  for (auto& [key, pass] : passes_)
    if (pass.graph) cudaGraphExecDestroy(pass.graph);
  passes_.clear();
}

}  // namespace ke::cuda
