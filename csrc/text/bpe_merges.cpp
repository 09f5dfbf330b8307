#include "text/bpe_merges.h"

#include <algorithm>
#include <queue>
#include <tuple>

#include "base/error.h"

namespace ke {

MergeTable::MergeTable(int32_t symbols, std::vector<Merge> merges) : merges_(std::move(merges)) {
  std::sort(merges_.begin(), merges_.end(),
            [](const Merge& a, const Merge& b) { return std::tie(a.left, a.right) < std::tie(b.left, b.right); });
  for (size_t i = 1; i < merges_.size(); ++i) {
    const Merge &a = merges_[i - 1], &b = merges_[i];
    KE_CHECK(a.left != b.left || a.right != b.right, ModelCorrupt, "merges: the pair of ids ", a.left, " and ", a.right,
             " occurs twice");
  }
  first_.assign(static_cast<size_t>(symbols) + 1, 0);
  for (const Merge& m : merges_) ++first_[static_cast<size_t>(m.left) + 1];
  for (size_t i = 1; i < first_.size(); ++i) first_[i] += first_[i - 1];
}

const Merge* MergeTable::find(int32_t left, int32_t right) const {
  if (left < 0 || right < 0) return nullptr;
  const Merge* begin = merges_.data() + first_[static_cast<size_t>(left)];
  const Merge* end = merges_.data() + first_[static_cast<size_t>(left) + 1];
  const Merge* hit = std::lower_bound(begin, end, right, [](const Merge& m, int32_t r) { return m.right < r; });
  return hit != end && hit->right == right ? hit : nullptr;
}

void MergeTable::apply(std::vector<int32_t>& symbols) const {
  struct Candidate {
    int32_t rank, at;     // at: position of the left symbol
    int32_t left, right;  // the symbols when it was found; if they have changed, it is outdated
  };
  const auto later = [](const Candidate& a, const Candidate& b) {
    return std::tie(a.rank, a.at) > std::tie(b.rank, b.at);
  };
  constexpr int32_t kGone = -2;
  const int32_t n = static_cast<int32_t>(symbols.size());
  std::vector<Candidate> candidates;
  const auto candidate = [&](int32_t at, int32_t left, int32_t right, auto&& add) {
    if (const Merge* m = find(left, right)) add(Candidate{m->rank, at, left, right});
  };
  for (int32_t i = 0; i + 1 < n; ++i)
    candidate(i, symbols[static_cast<size_t>(i)], symbols[static_cast<size_t>(i) + 1],
              [&](const Candidate& c) { candidates.push_back(c); });
  if (candidates.empty()) return;
  std::priority_queue<Candidate, std::vector<Candidate>, decltype(later)> queue(later, std::move(candidates));
  std::vector<int32_t> next(symbols.size()), previous(symbols.size());
  for (int32_t i = 0; i < n; ++i) {
    next[static_cast<size_t>(i)] = i + 1;
    previous[static_cast<size_t>(i)] = i - 1;
  }
  while (!queue.empty()) {
    const Candidate c = queue.top();
    queue.pop();
    const size_t left = static_cast<size_t>(c.at);
    const size_t right = static_cast<size_t>(next[left]);
    if (symbols[left] != c.left || next[left] == n || symbols[right] != c.right) continue;
    symbols[left] = find(c.left, c.right)->id;
    symbols[right] = kGone;
    next[left] = next[right];
    if (next[left] < n) previous[static_cast<size_t>(next[left])] = c.at;
    const auto add = [&](const Candidate& found) { queue.push(found); };
    if (previous[left] >= 0)
      candidate(previous[left], symbols[static_cast<size_t>(previous[left])], symbols[left], add);
    if (next[left] < n) candidate(c.at, symbols[left], symbols[static_cast<size_t>(next[left])], add);
  }
  std::erase(symbols, kGone);
}

}  // namespace ke
