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
  // Its own stop texts, which look at the text with tags, stay empty. Choices: AnswerReader::check_choices must have
  // passed them behind no words of the prompt.
  GenerateParams params;
  std::vector<std::string> stop;  // watched for in the text without tags
  bool keep_prompt = false;       // the text begins with the prompt's words
  // The prompt ends in the caller's phrase: the answer is over when the first box list closes, or when none begins, and
  // its first token says how likely it was that boxes follow (AnswerEntity::found_score).
  bool one_object = false;
  bool page = false;               // a page is read; that no text was found, or text without a box, is told
  bool markdown = false;           // Markdown was asked for
  double min_score = 0;            // entities of less sureness are left out, with a note
  std::vector<std::string> notes;  // what should be known about the request, for AnswerResult::notes
};

struct AnswerResult {
  Generation generation;
  Answer answer;
  FinishReason reason = FinishReason::Length;
  bool cut_line = false;           // of a page: the last line ended with the answer, before the model had closed it
  std::vector<std::string> notes;  // what should be known about the request and the answer
};

// Called on the calling thread; returning false ends the answer, which is then read as it is (FinishReason::Callback).
struct AnswerWatcher {
  std::function<bool(int32_t id, float logprob)> on_token;
  std::function<bool(const AnswerEvent&, size_t tokens)> on_event;  // tokens: of the answer so far
};

// One answer from its request to its result, whoever computes the tokens. Not copied or moved: on_token() refers to it.
class AnswerRun {
 public:
  // The engine must outlive it. InvalidRequest.
  AnswerRun(const Engine& engine, AnswerRequest request, AnswerWatcher watcher);
  AnswerRun(const AnswerRun&) = delete;

  // What is to be computed: the prompt, read from the request's segments once, and its parameters.
  const Prompt& prompt() const { return prompt_; }
  const GenerateParams& params() const { return params_; }
  // To be called with every token; empty where nobody looks at single tokens.
  OnToken on_token();
  // Reads the whole answer and hands out what the watcher has not got yet.
  AnswerResult finish(Generation generation);

 private:
  bool take(int32_t id, float logprob);
  bool is_asked_for(int32_t id, std::span<const int32_t> before) const;
  void hand_out(std::vector<AnswerEvent> events);
  void leave_out_unsure(AnswerResult& result) const;

  const ModelInfo& info_;
  const AnswerRequest request_;
  const AnswerWatcher watcher_;
  GenerateParams params_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  Prompt prompt_;
  AnswerReader reader_;
  std::vector<int32_t> kept_;
  AnswerStream stream_;
  std::vector<int32_t> ids_;  // of the answer so far
  double found_score_;        // of its first token
  size_t entities_ = 0;       // handed out
  bool met_stop_ = false, stopped_ = false;
};

// InvalidRequest, ModelCorrupt, ContextTooLong, Cancelled.
AnswerResult run_answer(const Engine& engine, AnswerRequest request, AnswerWatcher watcher, const CancelToken* cancel);

}  // namespace ke
