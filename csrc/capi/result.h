// An answer of the engine -> the object that a result handle stands for.
#pragma once
#include <optional>

#include "capi/objects.h"
#include "tasks/run.h"

namespace ke::capi {

// What a result says besides the answer.
struct Frame {
  int32_t width = 0, height = 0;  // of the picture that boxes refer to; 0: there is none
  std::optional<kosmos_box> seen_box;
};

std::shared_ptr<ResultObject> make_result(AnswerResult result, const ModelObject& model, const Frame& frame,
                                          double total_ms);

}  // namespace ke::capi
