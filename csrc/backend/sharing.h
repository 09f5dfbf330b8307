// Weights in a device's own layout, kept in files that processes map and so have in memory once (docs/sharing.md).
#pragma once
#include <cstdint>
#include <functional>
#include <string>

namespace ke {

class GgufFile;

enum class SharingStep {
  UseOrMake,  // map the file of these weights; where there is none, or a damaged one, make it
  MakeAgain,  // the file that is there lacks weights
  Use         // map it or go on without: it was made just now, or cannot be
};

struct SharingRequest {
  std::string folder;  // of such files; made where it is missing
  const GgufFile* model = nullptr;
  SharingStep step = SharingStep::UseOrMake;
  std::function<void()> wait;  // called now and then while another process makes the file; may throw to end the load
};

struct Sharing {
  std::string file;            // that is mapped; empty: none
  uint64_t shared_bytes = 0;   // of weights in it that this model uses
  uint64_t private_bytes = 0;  // of weights in memory of this process alone
  bool made = false;           // the file was made during this load
  std::string note;            // why not, or why a file was made again, in a line; empty: nothing to say
};

}  // namespace ke
