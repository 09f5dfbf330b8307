// What the bindings that take prompts share.
#pragma once
#include <nanobind/stl/optional.h>

#include "bindings/bind_common.h"
#include "engine/engine.h"

namespace ke {

using SegmentList = nb::typed<nb::sequence, std::pair<std::string, nb::any>>;
using TokenCallback = nb::typed<nb::object, nb::typed<nb::callable, std::optional<bool>(int, float)>>;  // or None

// ("text", str), ("tags", str), ("image", ImageEmbedding), ("rows", ImageEmbedding), ("boxes", [(i, j), ...]), ("ids",
// [int, ...])
std::vector<Segment> to_segments(const nb::sequence& list);

// None, or a callable (token id, ln p) -> bool or None. May be called and destroyed without the GIL.
OnToken to_on_token(nb::object callable);

// A Python object that may be dropped without the GIL.
std::shared_ptr<nb::object> shared_object(nb::object object);

// "stop", "stop_string", "length", "choice", "callback"
const char* reason_name(FinishReason reason);

}  // namespace ke
