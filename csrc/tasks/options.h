// Rules between the options of an answer. Their ranges are checked where they are read, by base/limits.h.
#pragma once
#include <string>
#include <vector>

#include "engine/generate.h"
#include "models/info.h"

namespace ke {

// What the caller gave, beside what became of it.
struct GivenOptions {
  double temperature = 0;  // not yet rounded to a float
  bool top_k = false, top_p = false, length_penalty = false;
};

// InvalidRequest naming the options that contradict each other, or what the model lacks for them.
void check_together(const ModelInfo& model, const GenerateParams& params, const std::vector<std::string>& stop,
                    const GivenOptions& given);

}  // namespace ke
