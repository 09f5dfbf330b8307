// kosmos_options checked and with defaults filled in, the same ranges as the Python package's options.
#pragma once
#include "capi/objects.h"
#include "tasks/plan.h"
#include "tasks/run.h"

namespace ke::capi {

// The part of an answer's request that options and the verb decide; traits nullptr: kosmos_generate's.
// InvalidRequest naming the option, its range and the value.
AnswerRequest check_options(const kosmos_options& o, const VerbTraits* traits, const ModelObject& model);

// A text that the caller gave: not NULL, UTF-8, not blank.
std::string_view given_text(const char* name, const char* text);

}  // namespace ke::capi
