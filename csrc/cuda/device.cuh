// What kernels are written against: CUDA C++ as nvcc knows it, or as csrc/cuda/emulate runs it on the processor.
#pragma once
#ifndef __CUDACC__
#include "cuda/emulate/device.h"
#else
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#define KE_SHARED(Type, name) __shared__ Type name
#define KE_DYNAMIC_SHARED(Type, name)          \
  extern __shared__ uint4 ke_dynamic_shared[]; \
  Type* name = reinterpret_cast<Type*>(ke_dynamic_shared)

namespace ke::cuda {

template <class T>
struct Same {
  using type = T;
};

template <class... P>
cudaError_t launch(cudaStream_t stream, void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared,
                   typename Same<P>::type... arguments) {
  void* pointers[] = {&arguments...};
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, dim3(threads), pointers, shared, stream);
}

__device__ __forceinline__ float from_half(uint16_t h) { return __half2float(__ushort_as_half(h)); }
__device__ __forceinline__ uint16_t to_half(float x) { return __half_as_ushort(__float2half_rn(x)); }

// The fragments are described in emulate/device.h, which is this file's definition.
__device__ __forceinline__ void mma_s8_k16(int (&d)[4], const uint32_t (&a)[2], uint32_t b) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(b));
#else  // Turing: two products of eight rows
  asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
               : "+r"(d[0]), "+r"(d[1])
               : "r"(a[0]), "r"(b));
  asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
               : "+r"(d[2]), "+r"(d[3])
               : "r"(a[1]), "r"(b));
#endif
}

__device__ __forceinline__ void mma_s8_k32(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  const uint32_t low[2] = {a[0], a[1]}, high[2] = {a[2], a[3]};
  mma_s8_k16(d, low, b[0]);
  mma_s8_k16(d, high, b[1]);
#endif
}

__device__ __forceinline__ void copy_async(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
#else
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
#endif
}

__device__ __forceinline__ void wait_async() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

}  // namespace ke::cuda
#endif

namespace ke::cuda {

// Blocks of a launch that take `per` of n things each.
inline unsigned up(int64_t n, int64_t per) { return static_cast<unsigned>((n + per - 1) / per); }

}  // namespace ke::cuda
