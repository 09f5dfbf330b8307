// Which token of an answer gave which byte of its text.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

namespace ke {

class TokenPlaces {
 public:
  // The next token that has bytes begins at byte `at`; at least where the one before it does. partial: all its bytes
  // were held back.
  void add(size_t at, int32_t index, bool partial) { begins_.push_back({at, index, partial}); }

  // Of a byte that a token gave: the last token that begins at it or before.
  int32_t token_at(size_t byte) const { return std::prev(behind(byte))->index; }
  // The first of the tokens whose bytes, held back, came to light together at that byte.
  int32_t first_token_at(size_t byte) const {
    auto at = std::prev(behind(byte));
    while (at != begins_.begin() && std::prev(at)->partial && std::prev(at)->at == at->at) --at;
    return at->index;
  }

 private:
  struct Begin {  // of a token
    size_t at;
    int32_t index;
    bool partial;
  };
  std::vector<Begin>::const_iterator behind(size_t byte) const {
    return std::upper_bound(begins_.begin(), begins_.end(), byte,
                            [](size_t wanted, const Begin& begin) { return wanted < begin.at; });
  }

  std::vector<Begin> begins_;  // ascending
};

}  // namespace ke
