// The loops of the probes: what an instruction set can do at most, with nothing else in the way. Each kind is one
// function per instruction set; compute loops return the multiply-accumulates done, read loops a sum of what was read.
#pragma once
#include <cstddef>
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ke::cpu::probe {

using ComputeLoop = double (*)(int64_t iterations);
using ReadLoop = uint64_t (*)(const uint8_t* data, size_t bytes);  // bytes: a multiple of 256

// The assembler constraint of a vector register; "memory" would send the loops there and back.
#if defined(__x86_64__)
#define KE_REGISTER "v"
#elif defined(__aarch64__)
#define KE_REGISTER "w"
#else
#define KE_REGISTER "m"
#endif

#define KE_EACH12(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11)

// Reads in vectors of Width bytes, with and without prefetching by hand.
#define KE_READ_LOOP(name, target, width, prefetch)                                                     \
  target inline uint64_t name(const uint8_t* data, size_t bytes) {                                      \
    typedef uint64_t Vector __attribute__((vector_size(width), may_alias));                             \
    Vector a{}, b{}, c{}, d{};                                                                          \
    for (size_t i = 0; i < bytes; i += 4 * width) {                                                     \
      if (prefetch)                                                                                     \
        for (size_t line = 0; line < 4 * width; line += 64) __builtin_prefetch(data + i + 2048 + line); \
      const Vector* v = reinterpret_cast<const Vector*>(data + i);                                      \
      a ^= v[0];                                                                                        \
      b ^= v[1];                                                                                        \
      c ^= v[2];                                                                                        \
      d ^= v[3];                                                                                        \
    }                                                                                                   \
    a ^= b ^ c ^ d;                                                                                     \
    uint64_t sum = 0;                                                                                   \
    for (size_t i = 0; i < width / 8; ++i) sum ^= a[i];                                                 \
    return sum;                                                                                         \
  }

// ---- any processor, as the compiler makes it

KE_READ_LOOP(read_plain, , 16, false)
KE_READ_LOOP(read_ahead, , 16, true)

inline double int8_plain(int64_t iterations) {
  alignas(64) int8_t x[64], w[64];
  alignas(64) int32_t sums[64] = {};
  for (int i = 0; i < 64; ++i) x[i] = static_cast<int8_t>(i), w[i] = static_cast<int8_t>(3 * i);
  for (int64_t n = 0; n < iterations; ++n) {
    asm volatile("" ::: "memory");
    for (int i = 0; i < 64; ++i) sums[i] += x[i] * w[i];
  }
  asm volatile("" : : "m"(sums));
  return 64.0 * static_cast<double>(iterations);
}

inline double float_plain(int64_t iterations) {
  typedef float Vector __attribute__((vector_size(16)));
  Vector x{1, 1, 1, 1}, y{1e-3f, 1e-3f, 1e-3f, 1e-3f};
  asm volatile("" : "+" KE_REGISTER(x), "+" KE_REGISTER(y));
#define KE_DEFINE(i) Vector s##i = x;
#define KE_STEP(i)     \
  s##i = s##i * x + y; \
  asm volatile("" : "+" KE_REGISTER(s##i));
#define KE_KEEP(i) asm volatile("" : : KE_REGISTER(s##i));
  KE_EACH12(KE_DEFINE)
  for (int64_t n = 0; n < iterations; ++n) {
    KE_EACH12(KE_STEP)
  }
  KE_EACH12(KE_KEEP)
#undef KE_DEFINE
#undef KE_STEP
#undef KE_KEEP
  return 12.0 * 4 * static_cast<double>(iterations);
}

#if defined(__x86_64__)

// ---- AVX2

#define KE_AVX2 __attribute__((target("avx2,fma")))
KE_READ_LOOP(read_avx2_plain, KE_AVX2, 32, false)
KE_READ_LOOP(read_avx2_ahead, KE_AVX2, 32, true)

// A compute loop over 12 accumulators of one register type: step is an instruction on %0 (accumulator), %1 and %2.
#define KE_COMPUTE_LOOP(name, target, Register, zero, constraint, step, macs) \
  target inline double name(int64_t iterations) {                             \
    Register x = zero, y = zero;                                              \
    asm volatile("" : "+" constraint(x), "+" constraint(y));                  \
    KE_EACH12(KE_DEFINE)                                                      \
    for (int64_t n = 0; n < iterations; ++n) {                                \
      KE_EACH12(KE_STEP_##step)                                               \
    }                                                                         \
    KE_EACH12(KE_KEEP)                                                        \
    return 12.0 * macs * static_cast<double>(iterations);                     \
  }
#define KE_DEFINE(i) auto s##i = x;
#define KE_KEEP(i) asm volatile("" : : KE_REGISTER(s##i));
#define KE_STEP_fma_ymm(i) asm volatile("vfmadd231ps %2, %1, %0" : "+x"(s##i) : "x"(x), "x"(y));
#define KE_STEP_fma_zmm(i) asm volatile("vfmadd231ps %2, %1, %0" : "+v"(s##i) : "v"(x), "v"(y));
#define KE_STEP_dot_ymm(i) asm volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(s##i) : "x"(x), "x"(y));
#define KE_STEP_dot_zmm(i) asm volatile("vpdpbusd %2, %1, %0" : "+v"(s##i) : "v"(x), "v"(y));

KE_COMPUTE_LOOP(float_avx2, KE_AVX2, __m256, _mm256_setzero_ps(), "x", fma_ymm, 8)

// 8 vpmaddubsw added in int16, then one vpmaddwd: as the 4-bit kernels do (quant_madd.inl).
KE_AVX2 inline double int8_avx2(int64_t iterations) {
  __m256i w = _mm256_set1_epi8(3), x = _mm256_set1_epi8(2), scale = _mm256_set1_epi16(1);
  asm volatile("" : "+x"(w), "+x"(x), "+x"(scale));
  __m256i sum = _mm256_setzero_si256();
  for (int64_t n = 0; n < iterations; ++n) {
    __m256i s0, s1, t0, t1;
    asm volatile("vpmaddubsw %2, %1, %0" : "=x"(s0) : "x"(w), "x"(x));
    asm volatile("vpmaddubsw %2, %1, %0" : "=x"(s1) : "x"(w), "x"(x));
#define KE_STEP                                                      \
  asm volatile("vpmaddubsw %2, %1, %0" : "=x"(t0) : "x"(w), "x"(x)); \
  asm volatile("vpmaddubsw %2, %1, %0" : "=x"(t1) : "x"(w), "x"(x)); \
  asm volatile("vpaddw %1, %0, %0" : "+x"(s0) : "x"(t0));            \
  asm volatile("vpaddw %1, %0, %0" : "+x"(s1) : "x"(t1));
    KE_STEP KE_STEP KE_STEP
#undef KE_STEP
        asm volatile("vpaddw %1, %0, %0" : "+x"(s0) : "x"(s1));
    asm volatile("vpmaddwd %1, %0, %0" : "+x"(s0) : "x"(scale));
    asm volatile("vpaddd %1, %0, %0" : "+x"(sum) : "x"(s0));
  }
  asm volatile("" : : "x"(sum));
  return 8.0 * 32 * static_cast<double>(iterations);
}

// ---- AVX-VNNI on 256 bits

KE_COMPUTE_LOOP(int8_avxvnni, KE_AVX2, __m256i, _mm256_setzero_si256(), "x", dot_ymm, 32)

// ---- AVX-512 with VNNI

#define KE_AVX512 __attribute__((target("avx512f")))
KE_READ_LOOP(read_avx512_plain, KE_AVX512, 64, false)
KE_READ_LOOP(read_avx512_ahead, KE_AVX512, 64, true)
KE_COMPUTE_LOOP(float_avx512, KE_AVX512, __m512, _mm512_setzero_ps(), "v", fma_zmm, 16)
KE_COMPUTE_LOOP(int8_avx512vnni, KE_AVX512, __m512i, _mm512_setzero_si512(), "v", dot_zmm, 64)

// ---- AMX: 16 rows times 16 rows over 64 values

#ifdef KE_ISA_AVX512AMX
inline double int8_amx(int64_t iterations) {
  struct {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } shapes;  // of eight full registers, which ldtilecfg fills with zeros
  asm volatile("ldtilecfg %0" ::"m"(shapes));
  for (int64_t n = 0; n < iterations; ++n)
    asm volatile(
        "tdpbsud %tmm6, %tmm4, %tmm0\n tdpbsud %tmm7, %tmm4, %tmm1\n"
        "tdpbsud %tmm6, %tmm5, %tmm2\n tdpbsud %tmm7, %tmm5, %tmm3");
  asm volatile("tilerelease");
  return 4.0 * 16 * 16 * 64 * static_cast<double>(iterations);
}
#endif

#undef KE_DEFINE
#undef KE_KEEP
#elif defined(__aarch64__)

// ---- NEON: dotprod and i8mm

typedef int32_t Int32x4 __attribute__((vector_size(16)));
typedef float Float32x4 __attribute__((vector_size(16)));

#define KE_NEON_LOOP(name, target, Register, text, macs)  \
  target inline double name(int64_t iterations) {         \
    Register x{}, y{};                                    \
    asm volatile("" : "+w"(x), "+w"(y));                  \
    KE_EACH12(KE_DEFINE)                                  \
    for (int64_t n = 0; n < iterations; ++n) {            \
      asm volatile(text : KE_OUT : "w"(x), "w"(y));       \
    }                                                     \
    KE_EACH12(KE_KEEP)                                    \
    return 12.0 * macs * static_cast<double>(iterations); \
  }
#define KE_DEFINE(i) auto s##i = x;
#define KE_KEEP(i) asm volatile("" : : KE_REGISTER(s##i));
#define KE_OUT                                                                                                   \
  "+w"(s0), "+w"(s1), "+w"(s2), "+w"(s3), "+w"(s4), "+w"(s5), "+w"(s6), "+w"(s7), "+w"(s8), "+w"(s9), "+w"(s10), \
      "+w"(s11)
#define KE_TEXT12(op, lanes, in)                                                                                       \
  op " %0." lanes ", %12." in ", %13." in "\n" op " %1." lanes ", %12." in ", %13." in "\n" op " %2." lanes            \
     ", %12." in ", %13." in "\n" op " %3." lanes ", %12." in ", %13." in "\n" op " %4." lanes ", %12." in ", %13." in \
     "\n" op " %5." lanes ", %12." in ", %13." in "\n" op " %6." lanes ", %12." in ", %13." in "\n" op " %7." lanes    \
     ", %12." in ", %13." in "\n" op " %8." lanes ", %12." in ", %13." in "\n" op " %9." lanes ", %12." in ", %13." in \
     "\n" op " %10." lanes ", %12." in ", %13." in "\n" op " %11." lanes ", %12." in ", %13." in "\n"
KE_NEON_LOOP(float_neon, , Float32x4, KE_TEXT12("fmla", "4s", "4s"), 4)
KE_NEON_LOOP(int8_dotprod, __attribute__((target("arch=armv8.2-a+dotprod"))), Int32x4, KE_TEXT12("sdot", "4s", "16b"),
             16)
KE_NEON_LOOP(int8_i8mm, __attribute__((target("arch=armv8.2-a+i8mm"))), Int32x4, KE_TEXT12("smmla", "4s", "16b"), 32)
#undef KE_DEFINE
#undef KE_KEEP
#endif

}  // namespace ke::cpu::probe
