// What a model was trained for, in its own words, and what a request wants beyond that.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/info.h"

namespace ke {

// Kinds of requests as <architecture>.trained_tasks lists them (joined by ", "), each with what a note calls it.
const std::vector<std::pair<std::string_view, std::string_view>>& request_kinds();

// A note that the model's list lacks some of these kinds; "" where it lacks none, or says nothing. "" is no kind.
std::string untrained_note(std::string_view name, std::string_view trained_tasks,
                           const std::vector<std::string_view>& kinds);

// Which kind of request these words are, behind an image or alone; "" for words of the caller's own.
std::string_view kind_of_words(const PromptFormats& formats, std::string_view words, bool picture);

}  // namespace ke
