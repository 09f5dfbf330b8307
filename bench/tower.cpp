// How long the parts of KOSMOS-2's vision encoder take: the four products of a layer and its attention, 24 times.
//   c++ -O2 -std=c++20 -Icsrc bench/tower.cpp BUILD/libkosmos_edge_core.a -ldl -lpthread -o tower
//   ./tower [THREADS [ISA [ROUNDS]]]
// 257 rows, width 1024, 16 heads, hidden width 4096, random Q6_K weights as q4_k_m has them. The first quartile of
// ROUNDS (40), in milliseconds of 24 layers, and thousand million multiply-accumulates a second. Run two builds, or
// two instruction sets, in turn.
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

constexpr int64_t kRows = 257, kWidth = 1024, kHidden = 4096, kHeads = 16;
constexpr int kLayers = 24, kCopies = 4;  // of each matrix, in turn: no second level of cache holds them

std::mt19937 generator(1);

std::vector<float> normals(int64_t n, float size) {
  std::normal_distribution<float> normal(0, size);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(generator);
  return values;
}

std::unique_ptr<ke::Buffer> filled(ke::Backend& backend, int64_t rows, int64_t cols) {
  auto buffer = backend.alloc(rows * cols);
  backend.write(normals(rows * cols, 1).data(), ke::Mat(*buffer, rows, cols));
  return buffer;
}

// Seconds of the first quartile of `rounds` calls of f(round).
template <class F>
double quartile(int rounds, F f) {
  std::vector<double> seconds;
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f(i);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 4];
}

double product(ke::Backend& backend, int rounds, int64_t out, int64_t in, ke::Activation act, bool residual) {
  std::vector<uint8_t> bytes(ke::dtype_bytes(ke::DType::Q6_K, out * in));
  ke::encode(ke::DType::Q6_K, normals(out * in, 0.03f).data(), bytes.data(), out * in, in);
  const ke::Tensor tensor{"w", ke::DType::Q6_K, {out, in}, bytes.data(), bytes.size()};
  std::vector<std::unique_ptr<ke::Linear>> w;
  for (int i = 0; i < kCopies; ++i) w.push_back(backend.upload({tensor}, nullptr, ke::MatmulUse::LargeBatch));
  const auto x = filled(backend, kRows, in), y = filled(backend, kRows, out), r = filled(backend, kRows, out);
  return quartile(rounds, [&](int i) {
    backend.linear(*w[i % kCopies], ke::Mat(*x, kRows, in), act, residual ? ke::Mat(*r, kRows, out) : ke::Mat(),
                   ke::Mat(*y, kRows, out));
  });
}

void print(const char* name, double seconds, double products) {
  std::printf("%-14s %7.1f ms  %6.0f GMAC/s\n", name, 1e3 * kLayers * seconds, products / seconds / 1e9);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 40, threads = argc > 1 ? std::atoi(argv[1]) : 1;
  if (rounds < 1 || threads < 1) {
    std::fprintf(stderr, "THREADS, ROUNDS: expected 1 or more\n");
    return 2;
  }
  const auto backend = ke::make_backend({"cpu", threads, argc > 2 ? argv[2] : ""});
  std::printf("%s, %d rounds\n", backend->description().c_str(), rounds);
  double all = 0;
  const auto add = [&](const char* name, int64_t out, int64_t in, ke::Activation act, bool residual) {
    const double seconds = product(*backend, rounds, out, in, act, residual);
    print(name, seconds, static_cast<double>(kRows * out * in));
    all += seconds;
  };
  add("qkv", 3 * kWidth, kWidth, ke::Activation::None, false);
  add("out", kWidth, kWidth, ke::Activation::None, true);
  add("up", kHidden, kWidth, ke::Activation::QuickGelu, false);
  add("down", kWidth, kHidden, ke::Activation::None, true);
  print("products", all, static_cast<double>(kRows * kWidth * (4 * kWidth + 2 * kHidden)));

  const auto qkv = filled(*backend, kRows, 3 * kWidth), o = filled(*backend, kRows, kWidth);
  const ke::Mat m(*qkv, kRows, 3 * kWidth);
  const double seconds = quartile(rounds, [&](int) {
    backend->attention(m.col_range(0, kWidth), m.col_range(kWidth, 2 * kWidth), m.col_range(2 * kWidth, 3 * kWidth),
                       kHeads, 0.125f, ke::Mat(*o, kRows, kWidth), ke::ScoreType::Int8, {});
  });
  print("attention", seconds, 2.0 * kRows * kRows * kWidth);
}
