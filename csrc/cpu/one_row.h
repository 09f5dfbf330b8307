// Which instruction set multiplies one row with a matrix. In decoding, memory is the limit, and then a narrower
// instruction set may be the faster one (AVX2 on Zen 4, where 512-bit steps take two turns). All give the same bits, so
// the first products of an answer are the measurement: they take the candidates in turn, each shape of matrix for
// itself, until there are kTrials times of each; then the fastest stays.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "cpu/kernels.h"

namespace ke::cpu {

class CpuLinear;

// One shape of matrix: values per row, rows, and what they are stored as.
struct OneRowShape {
  int64_t in = 0, out = 0;
  std::vector<PanelType> types;                      // of the parts
  size_t bytes = 0;                                  // of the weights
  std::atomic<const OneRowKernel*> chosen{nullptr};  // nullptr: still measured
  std::vector<std::vector<double>> rates;            // bytes per second, of every candidate; under the mutex
  size_t next = 0;                                   // candidate, counted on; likewise
};

class OneRowChoice {
 public:
  static constexpr int kTrials = 16;                    // times of every candidate
  static constexpr size_t kMeasured = size_t{1} << 20;  // bytes of weights from which a time says something
  static constexpr double kGain = 1.04;                 // by which another must be faster than the first

  // candidates: at least one; with one there is nothing to measure.
  explicit OneRowChoice(std::vector<OneRowKernel> candidates) : candidates_(std::move(candidates)) {}

  // The shape of `linear`, which lives as long as this; nullptr where there is no choice: float weights, a small
  // matrix, one candidate.
  OneRowShape* shape_of(const CpuLinear& linear);

  // One product by kernel(), from construction to done().
  class Trial {
   public:
    Trial(OneRowChoice& choice, OneRowShape* shape);
    auto kernel() const { return kernel_->linear; }
    void done();

   private:
    OneRowChoice& choice_;
    OneRowShape* shape_;
    const OneRowKernel* kernel_;
    size_t candidate_ = 0;
    bool measured_ = false;
    std::chrono::steady_clock::time_point start_;
  };

  // What was measured and chosen so far, in the order of upload.
  std::vector<KernelChoice> report() const;

 private:
  const std::vector<OneRowKernel> candidates_;
  mutable std::mutex mutex_;
  std::deque<OneRowShape> shapes_;  // addresses stay
};

}  // namespace ke::cpu
