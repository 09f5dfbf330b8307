// Which token usually follows the last few: learned from answers as they are made, and asked for drafts.
//
// For the last 1, 2, .. kContext tokens, as far as there are, the table holds the token that stood behind them most
// often (a majority vote, one candidate each). How far such a candidate is to be trusted is measured, too: for every
// length and count, whether or not a draft was made of it, how often it was the token that came.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace ke {

class DraftTable {
 public:
  static constexpr size_t kContext = 4;

  struct Guess {
    int32_t id;
    double probability;  // that it comes: measured, above 0 and below 1
  };

  // kinds[id]: >= 0: the token by itself. Below 0: one of many that stand for a number, such as a location token, with
  // all others of that value: they are never guessed, and count as the same token in front of others.
  explicit DraftTable(std::vector<int32_t> kinds);

  // The token that is likeliest behind `text` (any number of tokens); none of `banned`. None: nothing is known.
  std::optional<Guess> guess(std::span<const int32_t> text, std::span<const int32_t> banned) const;

  // `id` came behind `text` in an answer; `banned` could not.
  void learn(std::span<const int32_t> text, std::span<const int32_t> banned, int32_t id);

  // `id` stands behind `text` in a prompt: counts only where nothing else is known.
  void note(std::span<const int32_t> text, int32_t id);

 private:
  struct Slot {
    uint32_t tag = 0;
    int32_t id = 0;
    uint32_t count = 0;  // by how many the candidate is ahead; 0: the slot is free
  };
  struct Record {
    double came = 1, tries = 4;
  };
  int32_t kind(int32_t id) const;
  // The slot of the last `length` tokens of the text, and the tag that it has if it is theirs.
  std::pair<size_t, uint32_t> place(std::span<const int32_t> text, size_t length) const;
  const Slot* find(std::span<const int32_t> text, size_t length) const;
  static size_t column(const Slot& slot);

  static constexpr size_t kSlots = size_t{1} << 16;
  static constexpr size_t kCounts = 4;  // 1, 2, 3, more
  std::vector<int32_t> kinds_;
  std::vector<Slot> slots_;
  std::array<std::array<Record, kCounts>, kContext> records_{};
};

}  // namespace ke
