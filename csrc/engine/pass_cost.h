// How long a pass of the model takes, by its number of rows: by that a draft must pay. Measured while answers are made;
// until then, and where nothing is to depend on time, a rule.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace ke {

class PassCost {
 public:
  // A pass of `rows` rows (>= 1) took so long.
  void add(size_t rows, double ms);

  // Of a pass of `rows` rows: in ms, or where nothing is measured as rule() has it. Only ratios mean something.
  double of(size_t rows) const;

  // A row takes an eighth of what reading the weights takes; so about it was on an EPYC with two threads.
  static double rule(size_t rows) { return 1 + 0.125 * static_cast<double>(rows - 1); }

 private:
  struct Pass {
    size_t rows = 0;
    double ms = 0;
    uint64_t number = 0;
  };
  static constexpr size_t kKept = 8;           // latest passes of a size
  static constexpr uint64_t kForgotten = 512;  // passes after which a time says nothing about today
  static constexpr std::array<size_t, 15> kSizes = {1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 64, 128, SIZE_MAX};

  // The quickest of a size's latest passes, as a busy machine only ever adds to them; rows 0: fewer than two are known.
  Pass quickest(size_t size) const;

  std::array<std::array<Pass, kKept>, kSizes.size()> passes_{};  // by the least of kSizes that is not below their rows
  std::array<size_t, kSizes.size()> counts_{};
  uint64_t number_ = 0;
};

}  // namespace ke
