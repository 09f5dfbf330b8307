#include "tasks/options.h"

#include "base/error.h"

namespace ke {

void check_together(const ModelInfo& model, const GenerateParams& p, const std::vector<std::string>& stop,
                    const GivenOptions& given) {
  const double t = given.temperature;
  for (const auto& [name, is_given] : {std::pair("top_k", given.top_k), std::pair("top_p", given.top_p)})
    KE_CHECK(!is_given || t > 0, InvalidRequest, name, " needs temperature > 0, got temperature 0 (greedy decoding)");
  if (p.num_beams > 1) {
    KE_CHECK(t == 0, InvalidRequest, "num_beams ", p.num_beams, " needs temperature 0, got ", t);
    KE_CHECK(stop.empty(), InvalidRequest, "stop needs num_beams 1, got ", p.num_beams);
  } else {
    KE_CHECK(!given.length_penalty, InvalidRequest, "length_penalty needs num_beams > 1, got num_beams 1");
  }
  KE_CHECK(p.choices.empty() || !p.grammar, InvalidRequest,
           "choices and grammar contradict each other: leave grammar out");
  KE_CHECK(!p.grammar || model.grounding, InvalidRequest, "grammar: ", kNoGrounding);
}

}  // namespace ke
