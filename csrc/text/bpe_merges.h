// Byte pair encoding: adjacent symbols become one, the best pair first.
#pragma once
#include <cstdint>
#include <vector>

namespace ke {

struct Merge {
  int32_t left = 0, right = 0;  // symbols
  int32_t rank = 0;             // the lowest is merged first
  int32_t id = 0;               // the symbol that the pair becomes
};

class MergeTable {
 public:
  MergeTable() = default;
  // Symbols are 0..symbols-1. ModelCorrupt if a pair occurs twice.
  MergeTable(int32_t symbols, std::vector<Merge> merges);

  // Applies merges until none is left: the lowest rank first, leftmost on ties. Negative symbols are never merged.
  // O(n log n) time, linear memory.
  void apply(std::vector<int32_t>& symbols) const;

 private:
  const Merge* find(int32_t left, int32_t right) const;  // nullptr if there is none

  std::vector<Merge> merges_;       // ordered by left, right
  std::vector<uint32_t> first_{0};  // by left: where its merges begin
};

}  // namespace ke
