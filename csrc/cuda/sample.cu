// Launches of the sampling of tokens.
#include "cuda/kernels.h"

#include "cuda/sample.cuh"

namespace ke::cuda {

static dim3 chunk_grid(const SampleTask& t) { return {up(t.logits.cols, kVocabChunk), up(t.logits.rows, 1), 1}; }

cudaError_t launch_logit_stats(cudaStream_t stream, const SampleTask& t) {
  return launch(stream, logit_stats_kernel, chunk_grid(t), kSampleThreads, 0, t);
}

cudaError_t launch_softmax_sums(cudaStream_t stream, const SampleTask& t) {
  return launch(stream, softmax_sums_kernel, chunk_grid(t), kSampleThreads, 0, t);
}

cudaError_t launch_sort(cudaStream_t stream, const SampleTask& t) {
  return launch(stream, sort_kernel, chunk_grid(t), kSampleThreads, 0, t);
}

cudaError_t launch_sample(cudaStream_t stream, const SampleTask& t) {
  return launch(stream, sample_kernel, dim3{up(t.logits.rows, 1), 1, 1}, 32, kSampleBytes * chunk_grid(t).x, t);
}

}  // namespace ke::cuda
