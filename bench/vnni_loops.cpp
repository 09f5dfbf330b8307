// How near the inner loops of quantized products come to the int8 peak: the figures of docs/kernels.md.
//   g++ -O3 -std=c++20 -mavx512f -mavx512bw -mavx512vnni -mf16c -mfma bench/vnni_loops.cpp -o loops && ./loops
// Copies of the tile loops of csrc/cpu/quant_dot4.inl (2 panels x 6 columns, K 1024, 258 rows, one thread) over
// weights that are unpacked already; -DPIN=0 leaves the sums to the compiler.
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#ifndef PIN
#define PIN 1
#endif
#define INLINE __attribute__((always_inline))

// Panels and columns of a tile, rows of x, blocks of 256 k, pairs of panels.
constexpr int P = 2, C = 6, kRows = 258, kBlocks = 4, kGroups = 96;

template <int... I, class F>
INLINE inline void each_of(std::integer_sequence<int, I...>, F f) {
  (f.template operator()<I>(), ...);
}
template <int N, class F>
INLINE inline void each(F f) {
  each_of(std::make_integer_sequence<int, N>(), f);
}

alignas(64) int32_t scales[P][64][16];

// One block of 256 k; Sub: lines of 4 k that share an integer scale, 64 for none.
template <int Sub>
__attribute__((noinline)) void tile(const uint8_t* w, const int8_t* x, float* acc) {
  __m512i total[C][P], s[C][P];
  each<C * P>([&]<int i>() INLINE { total[i / P][i % P] = _mm512_setzero_si512(); });
  for (int sub = 0; sub < 64 / Sub; sub++) {
    each<C * P>([&]<int i>() INLINE { s[i / P][i % P] = _mm512_setzero_si512(); });
    constexpr int at_once = Sub < 8 ? Sub : 8;
    for (int g = sub * Sub; g < (sub + 1) * Sub; g += at_once)
      each<at_once>([&]<int u>() INLINE {
        __m512i v[P];
        each<P>([&]<int p>() INLINE { v[p] = _mm512_load_si512(w + (p * 64 + g + u) * 64); });
        each<C * P>([&]<int i>() INLINE {
          int32_t four;
          memcpy(&four, x + i / P * 256 + (g + u) * 4, 4);
          s[i / P][i % P] = _mm512_dpbusd_epi32(s[i / P][i % P], v[i % P], _mm512_set1_epi32(four));
          if (PIN) asm volatile("" : "+v"(s[i / P][i % P]));
        });
      });
    if (Sub == 64) continue;
    each<C * P>([&]<int i>() INLINE {
      const __m512i scale = _mm512_load_si512(scales[i % P][sub]);
      total[i / P][i % P] = _mm512_add_epi32(total[i / P][i % P], _mm512_mullo_epi32(s[i / P][i % P], scale));
    });
  }
  each<C * P>([&]<int i>() INLINE {
    float* a = acc + (i / P * P + i % P) * 16;
    const __m512 v = _mm512_cvtepi32_ps(Sub == 64 ? s[i / P][i % P] : total[i / P][i % P]);
    _mm512_storeu_ps(a, _mm512_add_ps(_mm512_loadu_ps(a), _mm512_mul_ps(v, _mm512_set1_ps(1e-3f))));
  });
}

// The best of 30 runs.
template <class F>
double seconds(F f) {
  double best = 1e9;
  for (int i = 0; i < 30; i++) {
    const auto start = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

template <int Sub>
void run(const char* name, double peak) {
  std::vector<int8_t> x(kBlocks * kRows * 256, 3);
  std::vector<float> acc(kRows * P * 16);
  auto* w = static_cast<uint8_t*>(aligned_alloc(64, kGroups * kBlocks * P * 4096));
  memset(w, 5, kGroups * kBlocks * P * 4096);
  const double t = seconds([&] {
    for (int g = 0; g < kGroups; g++)
      for (int b = 0; b < kBlocks; b++)
        for (int r = 0; r < kRows; r += C)
          tile<Sub>(w + (g * kBlocks + b) * P * 4096, &x[(b * kRows + r) * 256], &acc[r * P * 16]);
  });
  const double rate = 1.0 * kRows * kBlocks * 256 * kGroups * P * 16 / t / 1e9;
  printf("%-28s %6.1f GMAC/s  %3.0f %% of the peak\n", name, rate, 100 * rate / peak);
  free(w);
}

int main() {
  const double t = seconds([] {
    __m512i a[12];
    const __m512i b = _mm512_set1_epi32(3);
    each<12>([&]<int i>() INLINE { a[i] = _mm512_set1_epi32(i); });
    for (int n = 0; n < 1000000; n++)
      each<12>([&]<int i>() INLINE {
        a[i] = _mm512_dpbusd_epi32(a[i], b, b);
        asm volatile("" : "+v"(a[i]));
      });
  });
  const double peak = 1e6 * 12 * 64 / t / 1e9;
  printf("%-28s %6.1f GMAC/s\n", "peak, registers alone", peak);
  run<4>("a scale per 16 (Q6_K)", peak);
  run<8>("a scale per 32 (Q4_K, Q5_K)", peak);
  run<64>("a scale per 256", peak);
}
