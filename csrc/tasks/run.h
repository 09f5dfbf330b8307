// Running a prompt and reading its answer, whole or while it grows.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "tasks/answer.h"

namespace ke {

struct AnswerRequest {
  std::vector<Segment> segments;
  GenerateParams params;          // its own stop texts, which look at the text with tags, stay empty
  std::vector<std::string> stop;  // watched for in the text without tags
  bool keep_prompt = false;       // the text begins with the prompt's words
  bool one_object = false;        // the answer is over when the first box list closes, or when none begins
};

struct AnswerReply {
  Generation generation;
  Answer answer;
  FinishReason reason = FinishReason::Length;
  std::vector<std::string> notes;  // what should be known about the request
};

// Called on the calling thread; returning false ends the answer, which is then read as it is (FinishReason::Callback).
struct AnswerWatcher {
  std::function<bool(int32_t id, float logprob)> on_token;
  std::function<bool(const AnswerEvent&)> on_event;
};

// One answer from its request to its reply, whoever computes the tokens. Not copied or moved: on_token() refers to it.
class AnswerRun {
 public:
  // Engine, request and watcher must outlive it. InvalidRequest, ContextTooLong.
  AnswerRun(const Engine& engine, const AnswerRequest& request, const AnswerWatcher& watcher);
  AnswerRun(const AnswerRun&) = delete;

  // To be called with every token; empty where nobody looks at single tokens.
  OnToken on_token();
  // Reads the whole answer and hands out what the watcher has not got yet.
  AnswerReply finish(Generation generation);

 private:
  bool take(int32_t id, float logprob);
  void hand_out(const std::vector<AnswerEvent>& events);

  const ModelInfo& info_;
  const AnswerRequest& request_;
  const AnswerWatcher& watcher_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  AnswerReader reader_;
  std::vector<int32_t> kept_;
  AnswerStream stream_;
  std::vector<std::string> notes_;
  size_t tokens_ = 0;
  bool met_stop_ = false, stopped_ = false;
};

// InvalidRequest, ModelCorrupt, ContextTooLong, Cancelled.
AnswerReply run_answer(const Engine& engine, const AnswerRequest& request, const AnswerWatcher& watcher,
                       const CancelToken* cancel);

}  // namespace ke
