#include "text/stream.h"

#include <utility>

namespace ke {

StreamGrounder::StreamGrounder(const Tokenizer& tokenizer, int64_t bins) : reader_(tokenizer, bins) {
  check_bins(bins);
}

std::vector<Entity> StreamGrounder::push(int32_t id) {
  const size_t known = reader_.entity_count();
  reader_.push(id);
  std::vector<Entity> out;
  for (size_t i = known; i < reader_.entity_count(); ++i) out.push_back(reader_.entity(i));
  return out;
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
