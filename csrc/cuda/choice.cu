// Launches of the choice of tokens.
#include "cuda/kernels.h"

#include "cuda/choice.cuh"

namespace ke::cuda {

static dim3 stretches_of(const ChoiceTask& t) { return {up(t.logits.cols, kStretch), up(t.logits.rows, 1), 1}; }

cudaError_t launch_survey(cudaStream_t stream, const ChoiceTask& t) {
  return launch(stream, survey_kernel, stretches_of(t), kChoiceThreads, 0, t);
}

cudaError_t launch_weigh(cudaStream_t stream, const ChoiceTask& t) {
  return launch(stream, weigh_kernel, stretches_of(t), kChoiceThreads, 0, t);
}

cudaError_t launch_sort(cudaStream_t stream, const ChoiceTask& t) {
  return launch(stream, sort_kernel, stretches_of(t), kChoiceThreads, 0, t);
}

cudaError_t launch_pick(cudaStream_t stream, const ChoiceTask& t) {
  return launch(stream, pick_kernel, dim3{up(t.logits.rows, 1), 1, 1}, 32, kPickBytes * stretches_of(t).x, t);
}

}  // namespace ke::cuda
