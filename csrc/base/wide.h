// Runs a loop with vectors of 32 bytes where the machine has them, in files that are compiled for every machine. Each
// value is computed as in the source (no fused operations), so the bits are the same.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define KE_ALWAYS_INLINE __attribute__((always_inline))
#else
#define KE_ALWAYS_INLINE
#endif

namespace ke {

#if defined(__x86_64__) && defined(__GNUC__)
template <class Body>
__attribute__((target("avx2"))) void run_avx2(const Body& body) {
  body();
}

// body: []() KE_ALWAYS_INLINE { ... }; what it calls must be inlined, too.
template <class Body>
void run_wide(const Body& body) {
  static const bool avx2 = __builtin_cpu_supports("avx2");
  if (avx2)
    run_avx2(body);
  else
    body();
}
#else
template <class Body>
void run_wide(const Body& body) {
  body();
}
#endif

}  // namespace ke
