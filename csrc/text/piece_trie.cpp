// Building and walking the piece trie, without recursion.
#include "text/piece_trie.h"

#include <cstring>

namespace ke {

PieceTrie::PieceTrie(const std::vector<std::string>& pieces, const std::vector<int32_t>& sorted_ids) {
  struct Range {  // the entries of sorted_ids that share the node's path
    size_t begin, end;
    size_t depth;
  };
  std::vector<Range> ranges{{0, sorted_ids.size(), 0}};  // by node
  const auto piece = [&](size_t i) -> const std::string& { return pieces[static_cast<size_t>(sorted_ids[i])]; };
  for (size_t node = 0; node < ranges.size(); ++node) {
    auto [begin, end, depth] = ranges[node];
    if (begin < end && piece(begin).size() == depth) nodes_[node].id = sorted_ids[begin++];
    nodes_[node].first_child = static_cast<int32_t>(nodes_.size());
    while (begin < end) {
      const char byte = piece(begin)[depth];
      size_t stop = begin + 1;
      while (stop < end && piece(stop)[depth] == byte) ++stop;
      nodes_.emplace_back();
      labels_.push_back(static_cast<uint8_t>(byte));
      ranges.push_back({begin, stop, depth + 1});
      begin = stop;
    }
    nodes_[node].children = static_cast<int32_t>(nodes_.size()) - nodes_[node].first_child;
  }
  nodes_.shrink_to_fit();
  labels_.shrink_to_fit();
}

int32_t PieceTrie::child(int32_t node, char byte) const {
  const Node& n = nodes_[static_cast<size_t>(node)];
  if (n.children == 0) return -1;
  const uint8_t* labels = labels_.data() + n.first_child;
  const void* hit = std::memchr(labels, static_cast<unsigned char>(byte), static_cast<size_t>(n.children));
  return hit == nullptr ? -1 : n.first_child + static_cast<int32_t>(static_cast<const uint8_t*>(hit) - labels);
}

}  // namespace ke
