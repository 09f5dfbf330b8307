#include "tasks/trained.h"

#include <algorithm>

#include "base/error.h"

namespace ke {
namespace {

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

bool lists(std::string_view tasks, std::string_view kind) {
  for (size_t at = 0; at <= tasks.size();) {
    const size_t end = std::min(tasks.find(',', at), tasks.size());
    if (trimmed(tasks.substr(at, end - at)) == kind) return true;
    at = end + 1;
  }
  return false;
}

}  // namespace

const std::vector<std::pair<std::string_view, std::string_view>>& request_kinds() {
  static const std::vector<std::pair<std::string_view, std::string_view>> kinds = {
      {"caption", "short captions"},
      {"caption_long", "long captions"},
      {"prompt", "words of the caller's to go on from"},
      {"locate", "finding a phrase"},
      {"describe", "saying what is in a box"},
      {"describe_plain", "saying what is in a box without giving boxes"},
      {"ask", "questions"},
      {"ask_boxes", "questions answered with boxes"},
      {"read", "reading text lines"},
      {"read_markdown", "pages as Markdown"},
      {"examples", "examples that go before the request (few-shot)"},
      {"turns", "conversations"},
      {"generate", "free sequences of pictures, texts and boxes"},
  };
  return kinds;
}

std::string untrained_note(std::string_view name, std::string_view trained_tasks,
                           const std::vector<std::string_view>& kinds) {
  if (trimmed(trained_tasks).empty()) return "";
  std::string missing;
  for (const auto& [kind, words] : request_kinds()) {
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end() || lists(trained_tasks, kind)) continue;
    missing += concat(missing.empty() ? "" : " or ", words);
  }
  if (missing.empty()) return "";
  return concat(name.empty() ? "the model" : name, " was not trained for ", missing, ": the answer may be worthless");
}

std::string_view kind_of_words(const PromptFormats& f, std::string_view words, bool picture) {
  if (words.starts_with(f.grounding)) words.remove_prefix(f.grounding.size());
  words = trimmed(words);
  const std::string_view place = "{question}", question = f.question;
  const size_t at = question.find(place);
  if (picture && words == f.caption) return "caption";
  if (picture && words == f.caption_detailed) return "caption_long";
  if (at == std::string_view::npos) return "";
  const std::string_view before = question.substr(0, at), after = trimmed(question.substr(at + place.size()));
  return words.starts_with(before) && words.substr(before.size()).ends_with(after) ? "ask" : "";
}

}  // namespace ke
