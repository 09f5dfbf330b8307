// One answer in the making: which rows the model is to compute next, and what follows from their logits.
// A sequence computes nothing itself, so that one pass may hold the rows of any number of them.
//
// Drafts: where the grammar, or what earlier answers said (drafts.h), makes a token likely, its row goes into the pass
// that decides whether it comes. If it does, the pass has given two tokens; if not, the row is forgotten and its
// position is written again. A row's bits do not depend on the rows beside it, so ids and log-probabilities are those
// of one token at a time.
#pragma once
#include <chrono>
#include <span>
#include <vector>

#include "engine/drafts.h"
#include "engine/generate.h"
#include "text/stop_finder.h"

namespace ke {

class Sequence {
 public:
  // Checks the parameters and the context, before anything is computed: InvalidRequest, ContextTooLong.
  // The three references and `on_token` must outlive the sequence.
  Sequence(const Model& model, const Tokenizer& tokenizer, Prompt prompt, const GenerateParams& params,
           const OnToken& on_token);

  // How many positions its cache must hold.
  int64_t capacity() const { return static_cast<int64_t>(prompt_.ids.size()) + params_.max_tokens; }
  // The cache to store keys and values in. Must be called once, before the first rows; when these are asked for, the
  // positions that are kept already (prefix_cache.h) are put there, and the rows begin behind.
  void start(KvCache& cache);

  // Reads what the decoder is to look at, if it is an encoder-decoder model. Must be called before the first rows.
  void read_source(const CancelToken* cancel);

  const Prompt& prompt() const { return prompt_; }
  // Positions whose keys and values are stored once the rows handed out so far are computed.
  int64_t stored() const { return fed_; }
  bool in_prompt() const { return fed_ < static_cast<int64_t>(prompt_.ids.size()); }
  bool done() const { return done_; }

  // Appends the next rows, at most `most` (>= 1), to a pass, and to `logit_rows` the indices in `rows` of those whose
  // logits it takes. Returns how many these are: 0 while prompt rows are left after these.
  // room: for drafts that are learned; those of the grammar are made where they fit into `most`.
  size_t next_rows(size_t most, std::vector<InputRow>& rows, std::vector<int32_t>& logit_rows, DraftRoom room = {});

  // The tokens whose logits alone decide the next one, ascending; empty: all of the vocabulary. Location tokens and,
  // where they are asked for, the others carry a log-probability over the whole vocabulary: then it is all. So it is
  // where more than one row gives logits.
  std::span<const int32_t> vocab_subset() const { return vocab_subset_; }

  // If the device samples tokens: by which rule it samples each of the last logit rows, a draft's as if the draft had
  // come. As many rules as rows.
  void sampling_rules(std::span<SamplingRule> rules);
  // Whether the tokens can be sampled only where all logits are.
  bool needs_logits() const {
    return params_.hash_logits || params_.top_logprobs > 0 || params_.sampler.repetition_penalty != 1;
  }
  // take_logits() where the device sampled, one result per logit row.
  void take_sampled(std::span<const Sampled> sampled);

  // Decides the next token, or several, from the logits (logit rows, vocab or vocab_subset()); may
  // call on_token, whose exceptions pass through. Afterwards the sequence is done or has another row. ModelCorrupt
  // where a logit is not finite.
  void take_logits(std::span<const float> logits);

  // The answer so far; whole when done.
  Generation& result() { return out_; }

 private:
  void draft(size_t most, DraftRoom room);
  void learn(int32_t id);
  template <class Decide>
  void take_rows(Decide decide);
  void begin();
  void note_prompt();
  void decide(std::span<const float> logits);
  void decide(const Sampled& sampled);
  bool scored(int32_t id) const { return params_.logprobs || model_.info().is_scored(id, out_.ids); }
  void add_and_forced(int32_t id, double logprob);
  void add(int32_t id, float logprob);
  void find_vocab_subset();
  void finish(FinishReason reason);

  const Model& model_;
  const Tokenizer& tokenizer_;
  StopFinder stop_;
  const Prompt prompt_;
  const GenerateParams params_;
  const OnToken& on_token_;
  std::unique_ptr<Constraint> constraint_;  // may be nullptr
  Rules rules_;
  Sampler sampler_;
  KvCache* cache_ = nullptr;
  std::vector<int32_t> ids_;   // prompt and answer
  std::vector<float> scores_;  // (vocab), scratch
  std::vector<bool> seen_;     // (vocab), scratch
  std::vector<int32_t> vocab_subset_;
  int64_t fed_ = 0;              // how many of ids_ were handed out as rows
  std::vector<int32_t> drafts_;  // handed out behind them
  bool done_ = false;
  Generation out_;
  std::chrono::steady_clock::time_point started_, decoding_;
};

}  // namespace ke
