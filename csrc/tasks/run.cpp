#include "tasks/run.h"

namespace ke {

AnswerReply run_answer(const Engine& engine, const AnswerRequest& request, const AnswerWatcher& watcher,
                       const CancelToken* cancel) {
  const PromptFormat& format = engine.model().format;
  const std::shared_ptr<const Tokenizer> tokenizer = engine.tokenizer();
  const AnswerReader reader(*tokenizer, format.location_bins);
  AnswerStream stream(reader, request.stop);
  const std::vector<int32_t> kept = kept_ids(format, engine.prompt_ids(request.segments), request.keep_prompt);
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  bool met_stop = false, stopped = false;

  const auto hand_out = [&](const std::vector<AnswerEvent>& events) {
    for (const AnswerEvent& event : events)
      if (!stopped && watcher.on_event && !watcher.on_event(event)) stopped = true;
  };
  const OnToken on_token = [&](int32_t id, float logprob) {
    ids.push_back(id);
    logprobs.push_back(logprob);
    if (watcher.on_token && !watcher.on_token(id, logprob)) stopped = true;
    met_stop = reader.has_stop(kept, ids, request.stop);
    if (met_stop || stopped) return false;
    if (watcher.on_event) hand_out(stream.feed(kept, ids, logprobs));
    if (stopped) return false;
    return !request.one_object || (id != format.object_end && (ids.size() > 1 || id == format.object_begin));
  };
  const bool watched = watcher.on_token || watcher.on_event || request.one_object || !request.stop.empty();

  AnswerReply out;
  out.generation = engine.generate(request.segments, request.params, watched ? on_token : OnToken(), cancel);
  const Generation& g = out.generation;
  out.answer = reader.read(kept, g.ids, g.logprobs, request.stop);
  if (request.one_object && out.answer.entities.empty())  // the token that showed that no box begins says nothing more
    out.answer.text = reader.read(kept, {}, {}).text;
  hand_out(stream.finish(out.answer));
  out.reason = stopped              ? FinishReason::Callback
               : met_stop           ? FinishReason::StopString
               : request.one_object ? FinishReason::Eos
                                    : g.reason;
  return out;
}

}  // namespace ke
