// kosmos_segment arrays -> the segments of a prompt.
#pragma once
#include "capi/options.h"
#include "capi/result.h"

namespace ke::capi {

struct Sequence {
  std::vector<Segment> segments;
  Frame frame;  // of the last image
  std::vector<std::string> notes;
};

// InvalidRequest, naming the segment.
Sequence read_sequence(const ModelObject& model, const kosmos_segment* segments, size_t count);

}  // namespace ke::capi
