#include "cuda/launch_queue.h"

namespace ke::cuda {

constexpr size_t kFewSteps = 8;     // a pass as short as that is not worth a graph
constexpr size_t kMostPasses = 64;  // that are remembered

void LaunchQueue::add(const char* what, const Key& key, std::function<cudaError_t(cudaStream_t)> launch) {
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
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "record a graph");
  try {
    run(steps);
  } catch (...) {
    cudaStreamEndCapture(stream_, &graph);  // the stream must not stay in this state
    if (graph) cudaGraphDestroy(graph);
    throw;
  }
  check(cudaStreamEndCapture(stream_, &graph), "record a graph");
  const cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  check(error, "make a graph");
  return exec;
}

void LaunchQueue::flush() {
  if (steps_.empty()) return;
  std::vector<Step> steps;
  Key key;
  steps.swap(steps_);
  key.swap(key_);
  if (steps.size() <= kFewSteps) return run(steps);
  if (passes_.size() >= kMostPasses && !passes_.contains(key)) forget();
  Pass& pass = passes_[std::move(key)];
  pass.times++;
  if (pass.times == 1) return run(steps);
  if (!pass.graph) pass.graph = capture(steps);
  check(cudaGraphLaunch(pass.graph, stream_), "start a graph");
}

void LaunchQueue::forget() {
  for (auto& [key, pass] : passes_)
    if (pass.graph) cudaGraphExecDestroy(pass.graph);
  passes_.clear();
}

}  // namespace ke::cuda
