// The part of CUDA C++ that the kernels of csrc/cuda use, on the processor: built-in variables, barriers, shuffles,
// dp4a and the tensor cores' instructions by the fragment layouts of the PTX manual (section "Warp-level matrix
// instructions": mma.m16n8k16 and m16n8k32).
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda/runtime.h"
#include "emulate/group.h"

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__
#define __launch_bounds__(...)

// An object in the block's shared memory, by the type and the name it has in the kernel.
#define KE_SHARED(Type, name)       \
  static const char name##_key = 0; \
  Type& name = *static_cast<Type*>( \
      ::ke::emulate::shared_object(&name##_key, sizeof(Type), alignof(Type) < 16 ? 16 : alignof(Type)))
#define KE_DYNAMIC_SHARED(Type, name) Type* name = static_cast<Type*>(::ke::emulate::dynamic_shared())

struct uint4 {
  uint32_t x, y, z, w;
} __attribute__((aligned(16)));
struct uint2 {
  uint32_t x, y;
} __attribute__((aligned(8)));
struct float4 {
  float x, y, z, w;
} __attribute__((aligned(16)));

namespace ke::cuda {

struct LaunchShape {
  dim3 grid;
  unsigned threads = 0;
};
inline thread_local LaunchShape launch_shape;
inline void set_launch(dim3 grid, unsigned threads) { launch_shape = {grid, threads}; }
inline dim3 emulated_block() {
  const unsigned g = emulate::group_index(), x = launch_shape.grid.x, y = launch_shape.grid.y;
  return {g % x, g / x % y, g / x / y};
}

template <class T>
T emulated_shuffle(int operation, uint32_t mask, T value, unsigned source) {
  T own[32];
  const T* all = static_cast<const T*>(emulate::exchange(operation, mask, &value, sizeof(T), own));
  if (!(mask >> (source & 31) & 1)) emulate::fault("a shuffle reads a lane outside its mask");
  return all[source & 31];
}

}  // namespace ke::cuda

#define threadIdx (dim3{::ke::emulate::thread_index(), 0, 0})
#define blockIdx (::ke::cuda::emulated_block())
#define blockDim (dim3{::ke::cuda::launch_shape.threads, 1, 1})
#define gridDim (::ke::cuda::launch_shape.grid)

// NOLINTBEGIN: CUDA's names
inline void __syncthreads() { ke::emulate::group_barrier(); }
inline void __syncwarp(uint32_t mask = 0xffffffffu) { ke::emulate::subgroup_barrier(mask); }
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lanes) {
  return ke::cuda::emulated_shuffle(1, mask, value, ke::emulate::thread_index() % 32 ^ static_cast<unsigned>(lanes));
}
template <class T>
T __shfl_sync(uint32_t mask, T value, int lane) {
  return ke::cuda::emulated_shuffle(2, mask, value, static_cast<unsigned>(lane));
}
inline uint32_t __ballot_sync(uint32_t mask, bool vote) {
  const uint32_t own = vote;
  uint32_t votes[32] = {}, bits = 0;
  const uint32_t* all = static_cast<const uint32_t*>(ke::emulate::exchange(3, mask, &own, 4, votes));
  for (int i = 0; i < 32; i++) bits |= (mask >> i & 1 && all[i] ? 1u : 0u) << i;
  return bits;
}

// The rounding is the processor's (to nearest), and nothing is contracted: compile with -ffp-contract=off.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline int __float2int_rn(float a) {  // PTX cvt: NaN becomes 0, and what is too large the nearest integer there is
  if (std::isnan(a)) return 0;
  return static_cast<int>(std::clamp(std::nearbyint(static_cast<double>(a)), -0x1p31, 0x1p31 - 1));
}
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline float __uint_as_float(uint32_t a) { return std::bit_cast<float>(a); }
inline uint32_t __float_as_uint(float a) { return std::bit_cast<uint32_t>(a); }
inline int __dp4a(int a, int b, int c) {  // signed bytes
  for (int i = 0; i < 32; i += 8) c += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
  return c;
}
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t places) {  // the low three bits of each four count
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t r = 0;
  for (int i = 0; i < 4; i++) r |= static_cast<uint32_t>(bytes >> (8 * (places >> (4 * i) & 7)) & 255) << (8 * i);
  return r;
}
// NOLINTEND

namespace ke::cuda {

inline float from_half(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000u} << 16, exponent = h >> 10 & 31, fraction = h & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  if (exponent) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float tiny = static_cast<float>(fraction) * 0x1p-24f;
  return sign ? -tiny : tiny;
}

inline uint16_t to_half(float value) {  // to nearest, ties to even
  const uint32_t bits = std::bit_cast<uint32_t>(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7fff);
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (magnitude < 0x38800000) {  // subnormal: counted in 2^-24
    const float scaled = std::bit_cast<float>(magnitude) * 0x1p24f;
    return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(scaled)));
  }
  const uint32_t odd = magnitude >> 13 & 1;
  return static_cast<uint16_t>(sign | ((magnitude + 0xfff + odd - 0x38000000) >> 13));
}

// By the fragments that csrc/cuda/device.cuh describes.
inline void mma_s8_k32(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  struct Fragment {
    uint32_t a[4], b[2];
  } own, given[32];
  std::memcpy(own.a, a, sizeof a);
  std::memcpy(own.b, b, sizeof b);
  const Fragment* all = static_cast<const Fragment*>(emulate::exchange(4, 0xffffffffu, &own, sizeof own, given));
  const unsigned lane = emulate::thread_index() % 32, g = lane / 4, t = lane % 4;
  for (unsigned i = 0; i < 4; i++) {
    const unsigned high = i / 2, column = 2 * t + i % 2;
    for (unsigned k4 = 0; k4 < 8; k4++)
      d[i] = __dp4a(static_cast<int>(all[4 * g + k4 % 4].a[k4 / 4 * 2 + high]),
                    static_cast<int>(all[4 * column + k4 % 4].b[k4 / 4]), d[i]);
  }
}

inline void mma_s8_k16(int (&d)[4], const uint32_t (&a)[2], uint32_t b) {
  struct Fragment {
    uint32_t a[2], b;
  } own{{a[0], a[1]}, b}, given[32];
  const Fragment* all = static_cast<const Fragment*>(emulate::exchange(5, 0xffffffffu, &own, sizeof own, given));
  const unsigned lane = emulate::thread_index() % 32, g = lane / 4, t = lane % 4;
  for (unsigned i = 0; i < 4; i++) {
    const unsigned high = i / 2, column = 2 * t + i % 2;
    for (unsigned k4 = 0; k4 < 4; k4++)
      d[i] = __dp4a(static_cast<int>(all[4 * g + k4].a[high]), static_cast<int>(all[4 * column + k4].b), d[i]);
  }
}

inline void copy_async(void* shared, const void* global) { std::memcpy(shared, global, 16); }
inline void wait_async() {}

}  // namespace ke::cuda
