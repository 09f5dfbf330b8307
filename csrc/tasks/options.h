// Rules between the options of an answer. Their ranges are checked where they are read, by base/limits.h.
#pragma once
#include <cstdint>

namespace ke {

// Which options a caller gave, and what they are where a rule looks at it.
struct GivenOptions {
  int32_t num_beams = 1;
  double temperature = 0;
  bool top_k = false, top_p = false, length_penalty = false, stop = false, choices = false;
  bool grammar = false;  // by default or as given
  bool grounds = false;  // the model has location tokens
};

// InvalidRequest naming the options that contradict each other, or what the model lacks for them.
void check_together(const GivenOptions& given);

}  // namespace ke
