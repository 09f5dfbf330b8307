// A read-only byte trie over pieces: nodes in breadth-first order, so that the children of a node are adjacent.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace ke {

class PieceTrie {
 public:
  static constexpr int32_t kRoot = 0;

  PieceTrie() = default;
  // sorted_ids: indices into pieces, in byte order of pieces that are all different and not empty.
  PieceTrie(const std::vector<std::string>& pieces, const std::vector<int32_t>& sorted_ids);

  // The node reached from node by one byte, or -1. node is kRoot or came from child().
  int32_t child(int32_t node, char byte) const;
  // The id of the piece that ends at this node, or -1.
  int32_t id(int32_t node) const { return nodes_[static_cast<size_t>(node)].id; }
  bool empty() const { return nodes_.size() <= 1; }

 private:
  struct Node {
    int32_t id = -1;
    int32_t first_child = 0;
    int32_t children = 0;  // 0..256
  };
  std::vector<Node> nodes_{Node{}};
  std::vector<uint8_t> labels_{0};  // by node: the byte that leads to it
};

}  // namespace ke
