#include "cpu/probe.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/error.h"
#include "base/limits.h"
#include "cpu/memory.h"
#include "cpu/probe_loops.h"
#include "cpu/select.h"
#include "quant/dtype.h"

namespace ke::cpu {

namespace {

using namespace probe;

struct Loops {
  const char* isa;
  ComputeLoop int8, float32;
  ReadLoop read_plain, read_ahead;
};

const Loops all_loops[] = {
#ifdef KE_ISA_AVX512AMX
    {"avx512amx", int8_amx, float_avx512, read_avx512_plain, read_avx512_ahead},
#endif
#if defined(__x86_64__)
    {"avx512vnni", int8_avx512vnni, float_avx512, read_avx512_plain, read_avx512_ahead},
    {"avxvnni", int8_avxvnni, float_avx2, read_avx2_plain, read_avx2_ahead},
    {"avx2", int8_avx2, float_avx2, read_avx2_plain, read_avx2_ahead},
#elif defined(__aarch64__)
    {"neoni8mm", int8_i8mm, float_neon, read_plain, read_ahead},
    {"neondot", int8_dotprod, float_neon, read_plain, read_ahead},
#endif
    {"scalar", int8_plain, float_plain, read_plain, read_ahead},
};

const Loops& find_loops(const std::string& isa) {
  const std::string name = select_kernels(isa).name;  // checks that this machine can run it
  for (const Loops& loops : all_loops)
    if (name == loops.isa) return loops;
  fail(ErrorCode::DeviceUnavailable, "there are no probes for the instruction set '", name, "'");
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// work(thread) in every thread at the same time -> total work per second, from the common start to the last end.
template <class Work>
double rate(int threads, const Work& work) {
  std::vector<double> done(threads);
  std::chrono::steady_clock::time_point start;
  std::barrier begin(threads, [&]() noexcept { start = std::chrono::steady_clock::now(); });
  std::vector<std::thread> others;
  const auto run = [&](int thread) {
    begin.arrive_and_wait();
    done[thread] = work(thread);
  };
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  run(0);
  for (std::thread& other : others) other.join();
  const double seconds = seconds_since(start);
  double total = 0;
  for (const double amount : done) total += amount;
  return total / seconds;
}

// Iterations that take some 30 ms.
int64_t calibrate(ComputeLoop loop) {
  for (int64_t iterations = 1 << 10;; iterations *= 2) {
    const auto start = std::chrono::steady_clock::now();
    loop(iterations);
    if (seconds_since(start) > 0.02) return iterations;
  }
}

}  // namespace

std::vector<double> run_probe(Probe probe, const std::string& isa, int threads, int rounds, size_t bytes) {
  KE_CHECK(threads >= 1 && threads <= limits::kMaxThreads, InvalidRequest, "threads must be 1..", limits::kMaxThreads,
           ", got ", threads);
  KE_CHECK(rounds >= 1 && rounds <= 1000, InvalidRequest, "rounds must be 1..1000, got ", rounds);
  const Loops& loops = find_loops(isa);
  std::vector<double> rates;
  if (probe != Probe::Read) {
    const ComputeLoop loop = probe == Probe::Int8 ? loops.int8 : loops.float32;
    const int64_t iterations = calibrate(loop);
    for (int i = 0; i < rounds; ++i) rates.push_back(rate(threads, [&](int) { return loop(iterations); }));
    return rates;
  }
  constexpr size_t kPage = 4096;
  const size_t share = bytes / threads / kPage * kPage;  // of a thread
  KE_CHECK(share > 0, InvalidRequest, "bytes must be at least ", kPage, " per thread, got ", bytes);
  const Memory memory(share * threads);
  std::memset(memory.data(), 0x5a, memory.size());  // or all reads go to the one page of zeros
  std::vector<uint64_t> sums(threads);
  for (int i = 0; i < rounds; ++i) {
    double best = 0;  // whichever way of reading suits this processor
    for (const ReadLoop read : {loops.read_plain, loops.read_ahead})
      best = std::max(best, rate(threads, [&](int thread) {
                        sums[thread] += read(memory.data() + share * thread, share);
                        return static_cast<double>(share);
                      }));
    rates.push_back(best);
  }
  volatile uint64_t keep = 0;
  for (const uint64_t sum : sums) keep = keep + sum;
  return rates;
}

std::vector<KernelChoice> run_one_row_probe(const std::string& isa, int threads, size_t bytes) {
  constexpr int64_t kRows = 4096, kCols = 2048;  // a matrix of KOSMOS-2's decoder has 2,048 x 2,048 or 8,192
  constexpr int kPasses = 64;                    // at most: the choice is made after some 16 products of each candidate
  KE_CHECK(bytes >= size_t{1} << 20 && bytes <= size_t{1} << 34, InvalidRequest, "bytes must be 2^20 to 2^34, got ",
           bytes);
  const std::shared_ptr<Backend> backend = make_backend({"cpu", threads, isa});
  const std::unique_ptr<Buffer> x = backend->alloc(kCols), y = backend->alloc(kRows);
  const std::vector<float> inputs(kCols, 0.5f);
  backend->write(inputs.data(), Mat(*x, 1, kCols));
  for (const DType type :
       {DType::Q2_K, DType::Q3_K, DType::Q4_K, DType::Q5_K, DType::Q6_K, DType::IQ4_XS, DType::Q4_0, DType::Q8_0}) {
    const std::vector<uint8_t> data(dtype_bytes(type, kRows * kCols), 0x2c);  // as a float16 scale: 0.065
    std::vector<std::unique_ptr<Linear>> copies;
    for (size_t i = 0; i <= bytes / data.size(); ++i)
      copies.push_back(backend->upload({{"w", type, {kRows, kCols}, data.data(), data.size()}}, nullptr));
    const auto undecided = [&] {
      const std::vector<KernelChoice> choices = backend->kernel_choices();
      return !choices.empty() && choices.back().chosen.empty();
    };
    for (int pass = 0; pass < kPasses && undecided(); ++pass)
      for (const auto& w : copies) backend->linear(*w, Mat(*x, 1, kCols), Activation::None, Mat(), Mat(*y, 1, kRows));
  }
  return backend->kernel_choices();
}

}  // namespace ke::cpu
