#include "tasks/options.h"

#include <utility>

#include "base/error.h"
#include "models/info.h"

namespace ke {

void check_together(const GivenOptions& o) {
  for (const auto& [name, given] : {std::pair("top_k", o.top_k), std::pair("top_p", o.top_p)})
    KE_CHECK(!given || o.temperature > 0, InvalidRequest, name,
             " needs temperature > 0, got temperature 0 (greedy decoding)");
  if (o.num_beams > 1) {
    KE_CHECK(o.temperature == 0, InvalidRequest, "num_beams ", o.num_beams, " needs temperature 0, got ",
             o.temperature);
    KE_CHECK(!o.stop, InvalidRequest, "stop needs num_beams 1, got ", o.num_beams);
  } else {
    KE_CHECK(!o.length_penalty, InvalidRequest, "length_penalty needs num_beams > 1, got num_beams 1");
  }
  KE_CHECK(!o.choices || !o.grammar, InvalidRequest, "choices and grammar contradict each other: leave grammar out");
  KE_CHECK(!o.grammar || o.grounds, InvalidRequest, "grammar: ", kNoGrounding);
}

}  // namespace ke
