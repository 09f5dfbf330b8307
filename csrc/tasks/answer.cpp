#include "tasks/answer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "format/utf8.h"
#include "text/utf8.h"

namespace ke {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

double sum_of(std::span<const double> logprobs) {
  return logprobs.empty() ? kUnknown : std::accumulate(logprobs.begin(), logprobs.end(), 0.0);
}

double probability(double logprob) { return std::isnan(logprob) ? kUnknown : std::min(1.0, std::exp(logprob)); }

double mean_probability(std::span<const double> logprobs) {
  return probability(sum_of(logprobs) / static_cast<double>(logprobs.size()));
}

int64_t code_points(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return !utf8::is_continuation(c); });
}

void strip_end(std::string& text) {
  for (size_t at = text.size(); at > 0;) {
    do --at;
    while (at > 0 && utf8::is_continuation(text[at]));
    if (!utf8::is_blank(utf8::code_point(text, at, text.size() - at))) return;
    text.resize(at);
  }
}

// With scores, from ln p of the answer's tokens; places in bytes are those of the text as it is now.
AnswerEntity scored(Entity e, const AnswerText& text, size_t kept, std::span<const float> logprobs) {
  const auto known = [&](int32_t index) {
    const size_t i = static_cast<size_t>(index);
    return i >= kept && i - kept < logprobs.size() ? double{logprobs[i - kept]} : kUnknown;
  };
  const bool nameless = e.phrase_tokens.first == e.phrase_tokens.second;
  AnswerEntity out{nameless ? "" : std::move(e.phrase), e.start, e.end, 0, 0, {}, kUnknown, kUnknown, kUnknown};
  std::vector<double> all, words;
  for (size_t i = 0; i < e.boxes.size(); i++) {
    std::vector<double> corners;
    for (const int32_t index : e.tokens[i]) corners.push_back(known(index));
    all.insert(all.end(), corners.begin(), corners.end());
    out.boxes.push_back({e.boxes[i], e.cells[i], mean_probability(corners)});
  }
  out.score = mean_probability(all);
  for (int32_t i = e.phrase_tokens.first; i < e.phrase_tokens.second; i++) words.push_back(known(i));
  out.phrase_score = probability(sum_of(words));
  out.phrase_mean = mean_probability(words);
  out.begin_byte = text.byte_of(out.start);
  out.end_byte = std::max(out.begin_byte, text.byte_of(out.end));
  return out;
}

// Whether the words of the entity are all behind its boxes.
bool boxes_come_first(const Entity& e) {
  return !e.boxes.empty() && std::all_of(e.tokens.begin(), e.tokens.end(), [&](const std::vector<int32_t>& corners) {
    return !corners.empty() && *std::max_element(corners.begin(), corners.end()) < e.phrase_tokens.first;
  });
}

// The code points of the text that the kept ids give by themselves.
int64_t push_kept(AnswerText& text, const AnswerReader& reader, const std::vector<int32_t>& kept) {
  const std::unique_ptr<AnswerText> alone = reader.open();
  for (const int32_t id : kept) {
    text.push(id);
    alone->push(id);
  }
  alone->finish();
  return code_points(alone->text());
}

}  // namespace

Answer AnswerReader::read(const std::vector<int32_t>& kept, const std::vector<int32_t>& answer,
                          const std::vector<float>& logprobs, const std::vector<std::string>& stop) const {
  const std::unique_ptr<AnswerText> text = open();
  const int64_t prompt = push_kept(*text, *this, kept);
  std::vector<size_t> before;  // bytes of text before each id, kept ones included; only with stop texts
  if (!stop.empty()) before.assign(kept.size(), 0);
  for (const int32_t id : answer) {
    if (!stop.empty()) before.push_back(text->text().size());
    text->push(id);
  }
  text->finish();
  Answer out{std::string(text->text()), {}, text->notes(), text->ends_in_entity()};
  for (size_t i = 0; i < text->entity_count(); i++)
    out.entities.push_back(scored(text->entity(i), *text, kept.size(), logprobs));
  size_t cut = std::string::npos;
  for (const std::string& word : stop) cut = std::min(cut, out.text.find(word, text->byte_of(prompt)));
  if (cut == std::string::npos) return out;
  out.text.resize(cut);
  strip_end(out.text);
  const int64_t length = code_points(out.text);
  out.entities.clear();
  out.ends_in_entity = false;
  for (size_t i = 0; i < text->entity_count(); i++) {
    Entity e = text->entity(i);
    if (e.end > length) {
      if (e.start >= length || !boxes_come_first(e)) continue;
      out.ends_in_entity = true;
      e.end = length;
      e.phrase = out.text.substr(text->byte_of(e.start));
      while (e.phrase_tokens.second > e.phrase_tokens.first + 1 &&
             before[static_cast<size_t>(e.phrase_tokens.second) - 1] >= cut)
        e.phrase_tokens.second--;
    }
    AnswerEntity& added = out.entities.emplace_back(scored(std::move(e), *text, kept.size(), logprobs));
    added.begin_byte = std::min(added.begin_byte, out.text.size());
    added.end_byte = std::min(added.end_byte, out.text.size());
  }
  return out;
}

int32_t AnswerReader::check_choices(const std::vector<int32_t>& kept, const std::vector<std::string>& choices,
                                    const std::vector<std::string>& stop, int32_t max_tokens) const {
  const std::string words = read(kept, {}, {}).text;
  size_t longest = 0;
  for (size_t i = 0; i < choices.size(); i++) {
    const std::string& choice = choices[i];
    const std::vector<int32_t> ids = tokenizer_.encode(choice);
    const std::string text = read(kept, ids, {}).text;
    const bool exact = text == choice || (!kept.empty() && (text == words + choice || text == words + " " + choice));
    KE_CHECK(exact, InvalidRequest, "choices[", i, "]: no answer can be exactly ", quoted(choice),
             ": what the tokenizer makes of it is the text ", quoted(text));
    for (const std::string& s : stop)
      KE_CHECK(read(kept, ids, {}, {s}).text == text, InvalidRequest, "the stop text ", quoted(s),
               " would end choices[", i, "], ", quoted(choice), ", before its end");
    KE_CHECK(ids.size() <= static_cast<size_t>(max_tokens), InvalidRequest, "max_tokens: expected at least ",
             ids.size(), " for choices[", i, "], ", quoted(choice), ", got ", max_tokens);
    longest = std::max(longest, ids.size());
  }
  return static_cast<int32_t>(longest);
}

// The position behind the last image; 0 where there is none.
static size_t behind_last_image(const ImageLayout& image, int64_t most_rows, const std::vector<int32_t>& prompt) {
  if (!image.after.empty()) {
    const auto last = std::find_end(prompt.begin(), prompt.end(), image.after.begin(), image.after.end());
    return last == prompt.end() ? 0 : static_cast<size_t>(last - prompt.begin()) + image.after.size();
  }
  const int32_t last_row = image.row_id(most_rows - 1);
  const auto row =
      std::find_if(prompt.rbegin(), prompt.rend(), [&](int32_t id) { return id >= image.row && id <= last_row; });
  return static_cast<size_t>(prompt.rend() - row);
}

std::vector<int32_t> kept_ids(const ModelInfo& info, const std::vector<int32_t>& prompt, bool keep_prompt, bool exact) {
  const auto from = [&](size_t begin) {
    return std::vector<int32_t>(prompt.begin() + static_cast<ptrdiff_t>(begin), prompt.end());
  };
  if (keep_prompt) return from(behind_last_image(info.image, info.image_tokens, prompt));
  if (exact || !info.grounding) return {};
  const Grounding& f = *info.grounding;
  size_t begin = prompt.size();
  const auto opens_or_continues_boxes = [&](int32_t id) {
    return id == f.object_begin || id == f.delimiter || f.is_location(id);
  };
  while (begin > 0 && opens_or_continues_boxes(prompt[begin - 1])) --begin;
  if (begin > 0 && prompt[begin - 1] == f.phrase_end) {
    for (size_t i = begin; i > 0; --i)
      if (prompt[i - 1] == f.phrase_begin) return from(i - 1);
  }
  return from(begin);
}

std::vector<int32_t> kept_ids(const ModelInfo& info, const Prompt& prompt, bool keep_prompt, bool exact) {
  if (!keep_prompt) return kept_ids(info, prompt.ids, false, exact);
  const Prompt& told = prompt.told();
  size_t begin = 0;
  if (!told.images.empty()) begin = told.images.back().end;
  return {told.ids.begin() + static_cast<ptrdiff_t>(begin), told.ids.end()};
}

AnswerStream::AnswerStream(const AnswerReader& reader, const std::vector<int32_t>& kept,
                           const std::vector<std::string>& stop)
    : stop_(stop),
      answer_(reader.open()),
      kept_ids_(kept.size()),
      kept_code_points_(push_kept(*answer_, reader, kept)) {
  for (const std::string& s : stop_) hold_ = std::max(hold_, s.size() - 1);
}

bool AnswerStream::push(int32_t id, float logprob) {
  answer_->push(id);
  logprobs_.push_back(logprob);
  return !stop_.empty() && finds_stop();
}

bool AnswerStream::finds_stop() {
  const size_t known = answer_->unchanged();  // no stop text ends in these bytes
  const std::string_view text = answer_->text();
  const size_t from = std::max(answer_->byte_of(kept_code_points_), known - std::min(known, hold_));
  return std::any_of(stop_.begin(), stop_.end(),
                     [&](const std::string& s) { return text.find(s, from) != std::string_view::npos; });
}

std::vector<AnswerEvent> AnswerStream::events() {
  const std::string_view text = answer_->text();
  const size_t settled = answer_->settled();
  size_t safe = text.size();
  if (!stop_.empty()) {  // a stop text may yet begin before what is not settled
    safe = std::min(safe, settled);
    safe -= std::min(safe, hold_);
  }
  while (safe > 0 && safe < text.size() && utf8::is_continuation(text[safe])) --safe;
  std::vector<AnswerEvent> out;
  for (; entities_ < answer_->entity_count(); ++entities_) {
    AnswerEntity next = scored(answer_->entity(entities_), *answer_, kept_ids_, logprobs_);
    if (next.end_byte > safe) break;
    advance(text, std::min(next.end_byte, settled), out);
    out.emplace_back(std::move(next));
  }
  advance(text, std::min({answer_->last_word(), safe, settled}), out);
  return out;
}

std::vector<AnswerEvent> AnswerStream::finish(const Answer& answer) {
  std::vector<AnswerEvent> out;
  const bool goes_on = answer.text.starts_with(given_);
  for (; entities_ < answer.entities.size(); ++entities_) {
    if (goes_on) advance(answer.text, answer.entities[entities_].end_byte, out);
    out.emplace_back(answer.entities[entities_]);
  }
  if (goes_on) advance(answer.text, answer.text.size(), out);
  return out;
}

// What was given away before stays the beginning of the text: no later id changes what is settled. Blanks wait for what
// follows them: the text may end here.
void AnswerStream::advance(std::string_view text, size_t limit, std::vector<AnswerEvent>& out) {
  limit = std::max(limit, given_.size());
  for (size_t at = limit; at > given_.size();) {
    do --at;
    while (at > given_.size() && utf8::is_continuation(text[at]));
    if (!utf8::is_blank(utf8::code_point(text, at, limit - at))) break;
    limit = at;
  }
  if (limit <= given_.size()) return;
  out.emplace_back(std::string(text.substr(given_.size(), limit - given_.size())));
  given_.append(text, given_.size(), limit - given_.size());
}

}  // namespace ke
