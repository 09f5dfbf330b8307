// kosmos_options checked and with defaults filled in, the same ranges as the Python package's options.
#pragma once
#include "capi/objects.h"
#include "tasks/run.h"

namespace ke::capi {

// What a verb makes of the options.
struct Verb {
  bool takes_ground = false, ground = false;  // the default
  bool takes_detailed = false;
  bool takes_choices = false;
  bool grammar = true;  // the default
};

struct CheckedOptions {
  AnswerRequest request;  // all but its segments
  bool ground, detailed;
};

// InvalidRequest naming the option, its range and the value.
CheckedOptions check_options(const kosmos_options& o, const Verb& verb, const ModelObject& model);

// A text that the caller gave: not NULL, UTF-8, not blank.
std::string_view given_text(const char* name, const char* text);

}  // namespace ke::capi
