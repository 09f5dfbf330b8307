// Device programs with a mistake each, for the emulation to find: faults NAME runs one of them, over several schedules.
// Prints "fault: ..." where the scheduler refused it, else "ran". Sanitizers speak for themselves.
#include <cstdio>
#include <cstring>
#include <string>

#include "cuda/device.cuh"

namespace {

using ke::cuda::launch;
constexpr unsigned kThreads = 64;
using Shared = int[kThreads];

__global__ void sum_neighbours(int* out) {
  KE_SHARED(Shared, s);
  s[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = s[(threadIdx.x + 1) % kThreads];
}
__global__ void missing_barrier(int* out) {
  KE_SHARED(Shared, s);
  s[threadIdx.x] = static_cast<int>(threadIdx.x);
  out[blockIdx.x * kThreads + threadIdx.x] = s[(threadIdx.x + 1) % kThreads];
}
__global__ void barrier_of_some(int* out) {
  if (threadIdx.x < 32) __syncthreads();
  out[threadIdx.x] = 0;
}
__global__ void early_return(int* out) {
  if (threadIdx.x == 7) return;
  __syncthreads();
  out[threadIdx.x] = 0;
}
__global__ void shuffle_of_some(int* out) {
  out[threadIdx.x] = threadIdx.x % 2 ? __shfl_xor_sync(0xffffffffu, 1, 1) : 0;
}
__global__ void shuffle_outside_mask(int* out) {
  out[threadIdx.x] = threadIdx.x < 16 ? __shfl_sync(0x0000ffffu, 1, 20) : 0;
}
__global__ void beyond_shared(int* out) {
  KE_SHARED(Shared, s);
  s[threadIdx.x + (threadIdx.x == kThreads - 1)] = 1;
  __syncthreads();
  out[threadIdx.x] = s[0];
}
__global__ void beyond_global(int* out) { out[blockIdx.x * kThreads + threadIdx.x + 1] = 1; }
__global__ void blocks_share_a_place(int* out) {
  if (threadIdx.x == 0) out[0] = static_cast<int>(blockIdx.x);
}

__global__ void missing_second_barrier(int* out) {  // between the reads of a round and the writes of the next
  KE_SHARED(Shared, s);
  for (int round = 0; round < 2; round++) {
    s[threadIdx.x] = static_cast<int>(threadIdx.x) + round;
    __syncthreads();
    out[blockIdx.x * kThreads + threadIdx.x] = s[(threadIdx.x + 1) % kThreads];
  }
}
__global__ void missing_second_warp_barrier(int* out) {
  KE_SHARED(Shared, s);
  for (int round = 0; round < 2; round++) {
    s[threadIdx.x] = static_cast<int>(threadIdx.x) + round;
    __syncwarp();
    out[blockIdx.x * kThreads + threadIdx.x] = s[threadIdx.x ^ 1];
  }
}
__global__ void blocks_share_behind_a_barrier(int* out) {
  if (blockIdx.x == 0 && threadIdx.x == 0) out[0] = 1;
  __syncthreads();
  if (blockIdx.x == 1 && threadIdx.x == 1) out[0] = 2;
}

struct Case {
  const char* name;
  void (*kernel)(int*);
};
const Case cases[] = {
    {"none", sum_neighbours},
    {"missing_barrier", missing_barrier},
    {"barrier_of_some", barrier_of_some},
    {"early_return", early_return},
    {"shuffle_of_some", shuffle_of_some},
    {"shuffle_outside_mask", shuffle_outside_mask},
    {"beyond_shared", beyond_shared},
    {"beyond_global", beyond_global},
    {"blocks_share_a_place", blocks_share_a_place},
    {"missing_second_barrier", missing_second_barrier},
    {"missing_second_warp_barrier", missing_second_warp_barrier},
    {"blocks_share_behind_a_barrier", blocks_share_behind_a_barrier},
};

}  // namespace

extern "C" void kosmos_edge_emulated_seed(uint64_t seed);
extern "C" void kosmos_edge_emulated_lose(int lost);

int main(int argc, char** argv) {
  for (const Case& c : cases) {
    if (argc < 2 || std::strcmp(argv[1], c.name) != 0) continue;
    for (uint64_t seed = 0; seed < 3; seed++) {
      kosmos_edge_emulated_seed(seed);
      void* out = nullptr;
      if (cudaMalloc(&out, 2 * kThreads * sizeof(int)) != cudaSuccess) return 2;
      const cudaError_t error = launch(nullptr, c.kernel, dim3{2, 1, 1}, kThreads, 0, static_cast<int*>(out));
      if (error != cudaSuccess) {
        std::printf("fault: %s\n", cudaGetErrorString(error));
        return 0;
      }
      cudaFree(out);
    }
    std::puts("ran");
    return 0;
  }
  return 2;
}
