// What kernels are written against: CUDA C++, and the instructions that it has no functions for.
// tests/emulate/cuda/device.cuh takes this header's place to run kernels on the processor.
#pragma once
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

// d += a b as in mma_s8_k32 below, with k = 16: a[0] = (g, 4 t ..), a[1] = (g + 8, 4 t ..); b = (4 t .., g).
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

// d += a b, a (16, 32) signed bytes by rows, b (32, 8) signed bytes by columns. Lane l has, with g = l / 4, t = l % 4:
// a[0] = (g, 4 t ..), a[1] = (g + 8, 4 t ..), a[2] = (g, 16 + 4 t ..), a[3] = (g + 8, 16 + 4 t ..); b[0] = (4 t .., g),
// b[1] = (16 + 4 t .., g); d = (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1).
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

// 16 bytes from global to shared memory; there once wait_async() and a barrier are past.
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
