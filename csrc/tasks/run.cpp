#include "tasks/run.h"

#include <algorithm>
#include <iomanip>
#include <locale>

#include "base/error.h"
#include "format/utf8.h"
#include "tasks/prompts.h"
#include "text/utf8.h"

namespace ke {
namespace {

constexpr float kUnasked = std::numeric_limits<float>::quiet_NaN();
constexpr std::string_view kNoUsableBox = "no usable box";  // PageReader's words
constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

std::vector<std::string> notes_about(const Tokenizer& tokenizer, const AnswerRequest& request) {
  std::vector<std::string> texts;
  for (const Segment& s : request.segments)
    if (s.kind == Segment::Kind::Text) texts.push_back(s.text);
  return tag_notes(tokenizer, texts, request.stop);
}

AnswerContext context_of(const Prompt& prompt, bool markdown) {
  for (auto placed = prompt.images.rbegin(); placed != prompt.images.rend(); ++placed)  // rows have no size
    if (placed->image->width > 0) return {placed->image->width, placed->image->height, markdown};
  return {0, 0, markdown};
}

// Whether there is text outside of the lines: before the first box, without any, or of one that a stop text has cut.
bool has_loose_text(const Answer& answer) {
  const std::string& text = answer.text;
  size_t at = 0;
  const auto is_blank_until = [&](size_t end) {
    while (at < end) {
      const size_t length = utf8::character_length(text, at);
      if (!utf8::is_blank(utf8::code_point(text, at, length))) return false;
      at += length;
    }
    return true;
  };
  for (const AnswerEntity& line : answer.entities) {
    if (!is_blank_until(line.begin_byte)) return true;
    at = std::max(at, line.end_byte);
  }
  return !is_blank_until(text.size());
}

bool is_told(const std::vector<std::string>& notes) {
  return std::any_of(notes.begin(), notes.end(),
                     [](const std::string& note) { return note.find(kNoUsableBox) != std::string::npos; });
}

std::string left_out(const AnswerEntity& e, double min_score) {
  std::ostringstream out;
  out.imbue(std::locale::classic());
  out << quoted(e.phrase) << " left out: its score " << std::fixed << std::setprecision(3) << e.sureness();
  out << std::defaultfloat << std::setprecision(6) << " is below min_score " << min_score;
  return out.str();
}

const char* how_cut(FinishReason reason) {
  return reason == FinishReason::StopString ? "by a stop text"
         : reason == FinishReason::Length   ? "at max_tokens"
                                            : "when the answer was ended";
}

// The request's own stop texts, then the model's.
AnswerRequest with_stops(AnswerRequest request, const ModelInfo& info) {
  request.stop.insert(request.stop.end(), info.stop.begin(), info.stop.end());
  return request;
}

}  // namespace

AnswerRun::AnswerRun(const Engine& engine, AnswerRequest request, AnswerWatcher watcher)
    : info_(engine.model().info()),
      request_(with_stops(std::move(request), info_)),
      watcher_(std::move(watcher)),
      params_(request_.params),
      tokenizer_(engine.tokenizer()),
      prompt_(engine.prompt(request_.segments)),
      reader_(*tokenizer_, *info_.answers, context_of(prompt_, request_.markdown)),
      kept_(kept_ids(info_, prompt_, request_.keep_prompt, !params_.choices.empty())),
      stream_(reader_, kept_, request_.stop),
      found_score_(kUnknown) {
  KE_CHECK(!request_.one_object || info_.grounding, InvalidRequest, kNoGrounding);
  if (params_.guided_by_self) params_.blind = engine.blind_prompt(request_.segments);
  params_.logprobs |= request_.one_object;  // found_score is the first token's
  if (!params_.choices.empty() && !kept_.empty())
    reader_.check_choices(kept_, params_.choices, request_.stop, params_.max_tokens);
}

OnToken AnswerRun::on_token() {
  if (!watcher_.on_token && !watcher_.on_event && !request_.one_object && request_.stop.empty()) return {};
  return [this](int32_t id, float logprob) { return take(id, logprob); };
}

// Whether the caller wants the log-probability of this token.
bool AnswerRun::is_asked_for(int32_t id, std::span<const int32_t> before) const {
  return request_.params.logprobs || request_.params.top_logprobs > 0 || !request_.one_object ||
         info_.grounding->is_scored(id, before);
}

bool AnswerRun::take(int32_t id, float logprob) {
  if (ids_.empty() && request_.one_object) found_score_ = std::min(1.0, std::exp(double{logprob}));
  if (watcher_.on_token && !watcher_.on_token(id, is_asked_for(id, ids_) ? logprob : kUnasked)) stopped_ = true;
  ids_.push_back(id);
  met_stop_ = stream_.push(id, logprob);
  if (met_stop_ || stopped_) return false;
  if (watcher_.on_event) hand_out(stream_.events());
  if (stopped_) return false;
  if (!request_.one_object) return true;
  const Grounding& g = *info_.grounding;
  return id != g.object_end && (ids_.size() > 1 || id == g.object_begin);
}

void AnswerRun::hand_out(std::vector<AnswerEvent> events) {
  for (AnswerEvent& event : events) {
    if (AnswerEntity* entity = std::get_if<AnswerEntity>(&event)) {
      if (entities_++ == 0) entity->found_score = found_score_;
      if (!entity->reaches(request_.min_score)) continue;
    }
    if (!stopped_ && watcher_.on_event && !watcher_.on_event(event, ids_.size())) stopped_ = true;
  }
}

void AnswerRun::leave_out_unsure(AnswerResult& result) const {
  std::erase_if(result.answer.entities, [&](const AnswerEntity& e) {
    if (e.reaches(request_.min_score)) return false;
    result.notes.push_back(left_out(e, request_.min_score));
    return true;
  });
}

AnswerResult AnswerRun::finish(Generation generation) {
  AnswerResult out;
  out.generation = std::move(generation);
  Generation& g = out.generation;
  out.answer = reader_.read(kept_, g.ids, g.logprobs, request_.stop);
  out.notes = notes_about(*tokenizer_, request_);
  const auto add = [&](const std::vector<std::string>& notes) {
    out.notes.insert(out.notes.end(), notes.begin(), notes.end());
  };
  add(request_.notes);
  add(out.answer.notes);
  if (request_.one_object && out.answer.entities.empty()) {
    out.answer.text = reader_.read(kept_, {}, {}).text;  // the token that showed that no box begins says nothing more
    out.notes.push_back("the model gave no box for the phrase");
  }
  if (!out.answer.entities.empty()) out.answer.entities[0].found_score = found_score_;
  if (request_.page && !request_.markdown && has_loose_text(out.answer) && !is_told(out.answer.notes))
    out.notes.push_back(concat("some text has ", kNoUsableBox, ": it is in the text, but not among the lines"));
  if (watcher_.on_event) hand_out(stream_.finish(out.answer));
  const bool keeps_cut_line =
      request_.page && out.answer.ends_in_entity && out.answer.entities.back().reaches(request_.min_score);
  leave_out_unsure(out);
  for (size_t i = 0; i < g.ids.size(); i++)
    if (!is_asked_for(g.ids[i], std::span(g.ids).first(i))) g.logprobs[i] = kUnasked;
  out.reason = stopped_              ? FinishReason::Callback
               : met_stop_           ? FinishReason::StopString
               : request_.one_object ? FinishReason::Eos
                                     : g.reason;
  // an answer that was cut short says nothing about the page
  if (request_.page && out.answer.text.empty() && out.reason == FinishReason::Eos)
    out.notes.push_back("no text that the model can read");
  out.cut_line = keeps_cut_line && out.reason != FinishReason::Eos;
  if (out.cut_line) out.notes.push_back(concat("the last line was cut ", how_cut(out.reason)));
  return out;
}

AnswerResult run_answer(const Engine& engine, AnswerRequest request, AnswerWatcher watcher, const CancelToken* cancel) {
  AnswerRun run(engine, std::move(request), std::move(watcher));
  return run.finish(engine.generate(run.prompt(), run.params(), run.on_token(), cancel));
}

}  // namespace ke
