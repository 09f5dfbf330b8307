// How fast matrix products are with each storage type and length of rows, one thread or more, in turn:
//   c++ -O2 -std=c++20 -Icsrc bench/products.cpp BUILD/libkosmos_edge_core.a -ldl -lpthread -o products
//   ./products [THREADS [ISA [ROUNDS [MB [TYPE [COLS [ROWS]]]]]]]
// tower: 257 rows of a matrix that is said to meet many rows (an image's patches). prefill: 74 rows. decode: one row,
// over MB (96) of matrices of each type: caches may hold that, so take 900 and one TYPE to read from memory. The
// medians of ROUNDS (9), in thousand million multiply-accumulates and bytes a second, and of the fastest round of the
// tower's products what a cycle of the core's clock does (one thread). TYPE, COLS: only these. ROWS (1536): of
// the matrices; with MB 0 and 512 of them one fits the second level of cache. Rows of
// 1408 are BLIP-2's tower, of 3968 KOSMOS-2.5's, of 1536 and 4096 what they are compared with.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "backend/backend.h"
#include "quant/codec.h"
#include "quant/dtype.h"

namespace {

using ke::DType;

struct Stored {
  DType type;
  int64_t rows, cols;
  std::vector<uint8_t> bytes;
  std::unique_ptr<ke::Linear> tower;
  std::vector<std::unique_ptr<ke::Linear>> plain;  // the same matrix several times: no cache holds them all
  std::vector<double> seconds[3];
};

double since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Cycles a second, by a chain of multiplications of three cycles each, as on Intel's cores since Nehalem and AMD's Zen.
double clock_rate() {
  constexpr int n = 100000;
  uint64_t v = 3, five = 5;
  asm volatile("" : "+r"(five));  // or the compiler finds other instructions
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < n; ++i) {
    v *= five;
    asm volatile("" : "+r"(v));
  }
  return 3.0 * n / since(start);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1, rounds = argc > 3 ? std::atoi(argv[3]) : 9;
  const size_t bytes = (argc > 4 ? std::atoi(argv[4]) : 96) * size_t{1024 * 1024};
  const std::string only = argc > 5 ? argv[5] : "";
  const int64_t only_cols = argc > 6 ? std::atoll(argv[6]) : 0;
  const int64_t rows = argc > 7 ? std::atoll(argv[7]) : 1536;
  if (rows < 1) {
    std::fprintf(stderr, "ROWS: expected 1 or more, got %s\n", argv[7]);
    return 2;
  }
  const auto backend = ke::make_backend({"cpu", threads, argc > 2 ? argv[2] : ""});
  std::printf("%s, %d rounds\n", backend->description().c_str(), rounds);

  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const DType types[] = {DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1,   DType::Q8_0,   DType::Q2_K, DType::Q3_K,
                         DType::Q4_K, DType::Q5_K, DType::Q6_K, DType::IQ4_NL, DType::IQ4_XS, DType::F16};
  std::vector<Stored> all;
  for (const int64_t cols : {int64_t{1408}, int64_t{1536}, int64_t{3968}, int64_t{4096}})
    for (const DType type : types) {
      if (cols % ke::dtype_info(type).block_elems) continue;
      if ((!only.empty() && only != ke::dtype_info(type).name) || (only_cols && cols != only_cols)) continue;
      std::vector<float> values(static_cast<size_t>(rows * cols));
      for (float& v : values) v = normal(random) * 0.02f;
      Stored s{type, rows, cols, std::vector<uint8_t>(ke::dtype_bytes(type, rows * cols)), nullptr, {}, {}};
      ke::encode(type, values.data(), s.bytes.data(), rows * cols, cols);
      const ke::Tensor tensor{"w", type, {rows, cols}, s.bytes.data(), s.bytes.size()};
      s.tower = backend->upload({tensor}, nullptr, ke::MatmulUse::LargeBatch);
      const size_t copies = bytes / s.bytes.size() + 1;
      for (size_t i = 0; i < copies; ++i) s.plain.push_back(backend->upload({tensor}, nullptr, ke::MatmulUse::Any));
      all.push_back(std::move(s));
    }

  const int64_t counts[] = {257, 74, 1};
  const auto x = backend->alloc(257 * 4096), y = backend->alloc(257 * rows);
  std::vector<float> inputs(257 * 4096);
  for (float& v : inputs) v = normal(random);
  backend->write(inputs.data(), ke::Mat(*x, 257, 4096));
  double clock = 0;
  for (int round = -1; round < rounds; ++round)
    for (Stored& s : all)
      for (int kind = 0; kind < 3; ++kind) {
        const ke::Mat in(*x, counts[kind], s.cols), out(*y, counts[kind], s.rows);
        const size_t calls = kind == 2 ? s.plain.size() : 1;
        clock = std::max(clock, clock_rate());
        const auto start = std::chrono::steady_clock::now();
        for (size_t i = 0; i < calls; ++i)
          backend->linear(kind == 0 ? *s.tower : *s.plain[i], in, ke::Activation::None, ke::Mat(), out);
        backend->sync();
        if (round >= 0) s.seconds[kind].push_back(since(start) / static_cast<double>(calls));
      }

  std::printf("| type | row | tower GMAC/s | prefill GMAC/s | decode GMAC/s | decode GB/s | tower MAC/cycle |\n");
  std::printf("| --- | --- | --- | --- | --- | --- | --- |\n");
  for (const Stored& s : all) {
    double rate[3];
    for (int kind = 0; kind < 3; ++kind)
      rate[kind] = 1e-9 * static_cast<double>(counts[kind] * s.rows * s.cols) / median(s.seconds[kind]);
    const double best = *std::min_element(s.seconds[0].begin(), s.seconds[0].end());
    std::printf("| %s | %lld | %.0f | %.0f | %.1f | %.1f | %.1f |\n", ke::dtype_info(s.type).name,
                static_cast<long long>(s.cols), rate[0], rate[1], rate[2],
                1e-9 * static_cast<double>(s.bytes.size()) / median(s.seconds[2]),
                static_cast<double>(counts[0] * s.rows * s.cols) / best / clock / threads);
  }
}
