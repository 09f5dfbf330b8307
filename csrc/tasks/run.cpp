#include "tasks/run.h"

#include "base/error.h"
#include "tasks/prompts.h"

namespace ke {
namespace {

std::vector<std::string> notes_about(const Tokenizer& tokenizer, const AnswerRequest& request) {
  std::vector<std::string> texts;
  for (const Segment& s : request.segments)
    if (s.kind == Segment::Kind::Text) texts.push_back(s.text);
  return tag_notes(tokenizer, texts, request.stop);
}

}  // namespace

AnswerRun::AnswerRun(const Engine& engine, const AnswerRequest& request, const AnswerWatcher& watcher)
    : info_(engine.model().info()),
      request_(request),
      watcher_(watcher),
      tokenizer_(engine.tokenizer()),
      reader_(*tokenizer_, *info_.answers),
      kept_(kept_ids(info_, engine.prompt_ids(request.segments), request.keep_prompt, !request.params.choices.empty())),
      stream_(reader_, kept_, request.stop),
      notes_(notes_about(*tokenizer_, request)) {
  KE_CHECK(!request.one_object || info_.grounding, InvalidRequest, kNoGrounding);
  if (!request.params.choices.empty())
    reader_.check_choices(kept_, request.params.choices, request.stop, request.params.max_tokens);
}

OnToken AnswerRun::on_token() {
  if (!watcher_.on_token && !watcher_.on_event && !request_.one_object && request_.stop.empty()) return {};
  return [this](int32_t id, float logprob) { return take(id, logprob); };
}

bool AnswerRun::take(int32_t id, float logprob) {
  ++tokens_;
  if (watcher_.on_token && !watcher_.on_token(id, logprob)) stopped_ = true;
  met_stop_ = stream_.push(id, logprob);
  if (met_stop_ || stopped_) return false;
  if (watcher_.on_event) hand_out(stream_.events());
  if (stopped_) return false;
  if (!request_.one_object) return true;
  const Grounding& g = *info_.grounding;
  return id != g.object_end && (tokens_ > 1 || id == g.object_begin);
}

void AnswerRun::hand_out(const std::vector<AnswerEvent>& events) {
  for (const AnswerEvent& event : events)
    if (!stopped_ && watcher_.on_event && !watcher_.on_event(event)) stopped_ = true;
}

AnswerReply AnswerRun::finish(Generation generation) {
  AnswerReply out;
  out.generation = std::move(generation);
  const Generation& g = out.generation;
  out.answer = reader_.read(kept_, g.ids, g.logprobs, request_.stop);
  if (request_.one_object && out.answer.entities.empty())  // the token that showed that no box begins says nothing more
    out.answer.text = reader_.read(kept_, {}, {}).text;
  hand_out(stream_.finish(out.answer));
  out.reason = stopped_              ? FinishReason::Callback
               : met_stop_           ? FinishReason::StopString
               : request_.one_object ? FinishReason::Eos
                                     : g.reason;
  out.notes = std::move(notes_);
  return out;
}

AnswerReply run_answer(const Engine& engine, const AnswerRequest& request, const AnswerWatcher& watcher,
                       const CancelToken* cancel) {
  AnswerRun run(engine, request, watcher);
  return run.finish(engine.generate(request.segments, request.params, run.on_token(), cancel));
}

}  // namespace ke
