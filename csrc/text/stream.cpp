// Entity events.
#include "text/stream.h"

#include <algorithm>
#include <utility>

namespace ke {

StreamGrounder::StreamGrounder(const Tokenizer& tokenizer, int64_t bins) : tokenizer_(tokenizer), bins_(bins) {
  check_bins(bins);
}

std::vector<Entity> StreamGrounder::push(int32_t id) {
  constexpr std::string_view kClose = "</object>";
  const std::string piece = tokenizer_.text(id);
  ids_.push_back(id);
  tail_ += piece;
  const bool closes = tail_.find(kClose) != std::string::npos;
  if (tail_.size() >= kClose.size()) tail_.erase(0, tail_.size() - (kClose.size() - 1));
  if (!closes) return {};
  // Matches never look ahead of their </object>, so the entities of a prefix are a prefix of the entities.
  std::vector<Entity> entities = parse_grounded(tokenizer_, ids_, bins_).entities;
  const size_t old = std::min(std::exchange(reported_, entities.size()), entities.size());
  entities.erase(entities.begin(), entities.begin() + static_cast<std::ptrdiff_t>(old));
  return entities;
}

std::string clean_up_tokenization(std::string_view text) {
  static constexpr std::pair<std::string_view, std::string_view> kReplacements[] = {
      {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
      {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  std::string out(text);
  for (const auto& [from, to] : kReplacements) {
    std::string replaced;
    size_t at = 0;
    for (size_t hit; (hit = out.find(from, at)) != std::string::npos; at = hit + from.size()) {
      replaced.append(out, at, hit - at);
      replaced += to;
    }
    replaced.append(out, at);
    out = std::move(replaced);
  }
  return out;
}

}  // namespace ke
