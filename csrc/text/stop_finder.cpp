#include "text/stop_finder.h"

#include <algorithm>

namespace ke {

StopFinder::StopFinder(const Tokenizer& tokenizer, const std::vector<std::string>& stop)
    : stop_(stop), decoder_(tokenizer, /*keep_tags=*/true) {
  for (const std::string& s : stop_) longest_ = std::max(longest_, s.size());
}

const std::string* StopFinder::push(int32_t id) {
  if (stop_.empty()) return nullptr;
  tail_ += decoder_.push(id);
  for (const std::string& s : stop_)
    if (tail_.find(s) != std::string::npos) return &s;
  if (tail_.size() >= longest_) tail_.erase(0, tail_.size() - (longest_ - 1));
  return nullptr;
}

}  // namespace ke
