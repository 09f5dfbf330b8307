#include "tasks/answer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

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

// Byte of the code point with this number; the text's ends where it lies outside.
size_t byte_of(std::string_view text, int64_t code_point) {
  size_t at = 0;
  for (; code_point > 0 && at < text.size(); --code_point) {
    do ++at;
    while (at < text.size() && utf8::is_continuation(text[at]));
  }
  return at;
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

}  // namespace

Answer AnswerReader::read(const std::vector<int32_t>& kept, const std::vector<int32_t>& answer,
                          const std::vector<float>& logprobs, const std::vector<std::string>& stop) const {
  std::vector<int32_t> ids = kept;
  ids.insert(ids.end(), answer.begin(), answer.end());
  Grounded grounded = parse(ids);
  const auto known = [&](int32_t index) {
    const size_t i = static_cast<size_t>(index);
    return i >= kept.size() && i - kept.size() < logprobs.size() ? double{logprobs[i - kept.size()]} : kUnknown;
  };
  Answer out{std::move(grounded.text), {}};
  for (Entity& e : grounded.entities) {
    AnswerEntity entity{std::move(e.phrase), e.start, e.end, 0, 0, {}, kUnknown, kUnknown};
    std::vector<double> all, words;
    for (size_t i = 0; i < e.boxes.size(); i++) {
      const double pair[2] = {known(e.tokens[i].first), known(e.tokens[i].second)};
      all.insert(all.end(), pair, pair + 2);
      entity.boxes.push_back({e.boxes[i], e.cells[i], mean_probability(pair)});
    }
    entity.score = mean_probability(all);
    for (int32_t i = e.phrase_tokens.first; i < e.phrase_tokens.second; i++) words.push_back(known(i));
    entity.phrase_score = probability(sum_of(words));
    out.entities.push_back(std::move(entity));
  }
  if (const size_t cut = stop_at(out.text, kept, stop); cut != std::string::npos) {
    out.text.resize(cut);
    strip_end(out.text);
    const int64_t length = code_points(out.text);
    std::erase_if(out.entities, [&](const AnswerEntity& e) { return e.end > length; });
  }
  for (AnswerEntity& e : out.entities) {
    e.begin_byte = byte_of(out.text, e.start);
    e.end_byte = std::max(e.begin_byte, byte_of(out.text, e.end));
  }
  return out;
}

bool AnswerReader::has_stop(const std::vector<int32_t>& kept, const std::vector<int32_t>& answer,
                            const std::vector<std::string>& stop) const {
  if (stop.empty()) return false;
  std::vector<int32_t> ids = kept;
  ids.insert(ids.end(), answer.begin(), answer.end());
  return stop_at(parse(ids).text, kept, stop) != std::string::npos;
}

size_t AnswerReader::stop_at(const std::string& text, const std::vector<int32_t>& kept,
                             const std::vector<std::string>& stop) const {
  size_t first = std::string::npos;
  if (stop.empty()) return first;
  const size_t begin = kept.empty() ? 0 : byte_of(text, code_points(parse(kept).text));
  for (const std::string& word : stop) first = std::min(first, text.find(word, begin));
  return first;
}

// The position behind the last picture; 0 where there is none.
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

std::vector<int32_t> kept_ids(const ModelInfo& info, const std::vector<int32_t>& prompt, bool keep_prompt) {
  const auto from = [&](size_t begin) {
    return std::vector<int32_t>(prompt.begin() + static_cast<ptrdiff_t>(begin), prompt.end());
  };
  if (keep_prompt) return from(behind_last_image(info.image, info.image_tokens, prompt));
  if (!info.grounding) return {};
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

AnswerStream::AnswerStream(const AnswerReader& reader, const std::vector<std::string>& stop) : reader_(reader) {
  for (const std::string& s : stop) hold_ = std::max(hold_, s.size() - 1);
}

std::vector<AnswerEvent> AnswerStream::feed(const std::vector<int32_t>& kept, const std::vector<int32_t>& answer,
                                            const std::vector<float>& logprobs) {
  const Answer now = reader_.read(kept, answer, logprobs);
  size_t safe = now.text.size() - std::min(hold_, now.text.size());
  while (safe > 0 && safe < now.text.size() && utf8::is_continuation(now.text[safe])) --safe;
  std::vector<AnswerEvent> out;
  while (entities_ < now.entities.size() && now.entities[entities_].end_byte <= safe)
    entity(now.text, now.entities[entities_], out);
  const size_t blank = now.text.rfind(' ');
  advance(now.text, std::min(blank == std::string::npos ? 0 : blank, safe), out);
  return out;
}

std::vector<AnswerEvent> AnswerStream::finish(const Answer& answer) {
  std::vector<AnswerEvent> out;
  while (entities_ < answer.entities.size()) entity(answer.text, answer.entities[entities_], out);
  if (answer.text.starts_with(given_) && answer.text.size() > given_.size())
    out.emplace_back(answer.text.substr(given_.size()));
  return out;
}

void AnswerStream::entity(const std::string& text, const AnswerEntity& e, std::vector<AnswerEvent>& out) {
  ++entities_;
  advance(text, e.end_byte, out);
  out.emplace_back(e);
}

void AnswerStream::advance(const std::string& text, size_t limit, std::vector<AnswerEvent>& out) {
  limit = std::min(limit, reader_.settled(text));
  if (limit <= given_.size() || !text.starts_with(given_)) return;
  out.emplace_back(text.substr(given_.size(), limit - given_.size()));
  given_.resize(0);
  given_.append(text, 0, limit);
}

}  // namespace ke
