// Several answers at once. A pass computes the next token of every answer that is being decoded together with the
// prompt of the next one that waits, so that a weight read from memory serves many rows. A row's bits do not depend on
// the rows beside it: every answer is the one that generate() gives alone.
#pragma once
#include <exception>
#include <memory>
#include <vector>

#include "engine/sequence.h"

namespace ke {

class Batch {
 public:
  struct Finished {
    uint64_t key = 0;          // as add() gave it
    Generation generation;     // empty where there is an error
    std::exception_ptr error;  // why there is no answer
  };

  // At most `size` answers (1..limits::kMaxBatch) are in the making at a time. The model and the tokenizer must outlive
  // it.
  Batch(const Model& model, const Tokenizer& tokenizer, int size);

  int size() const { return size_; }
  // Answers in the making.
  int open() const { return static_cast<int>(members_.size()); }

  // Takes one answer in, InvalidRequest where `size` are open or num_beams is not 1; the rest as Sequence. Nothing is
  // computed. Keys count from 0. `on_token` is called within step(); `cancel` (may be nullptr) ends this answer alone.
  uint64_t add(Prompt prompt, const GenerateParams& params, OnToken on_token,
               std::shared_ptr<const CancelToken> cancel);

  // One pass; at least one answer is open. Returns those that ended, with an answer or with an error of their own (of
  // on_token, Cancelled, ModelCorrupt), in the order of add(). What the pass itself throws (Cancelled by `cancel`,
  // OutOfMemory) ends all that are open: the batch is empty afterwards and goes on to be of use.
  std::vector<Finished> step(const CancelToken* cancel);

  // Ends all that are open.
  void clear();

 private:
  struct Member {
    uint64_t key = 0;
    OnToken on_token;
    std::shared_ptr<const CancelToken> cancel;
    std::unique_ptr<KvCache> cache;
    std::unique_ptr<Sequence> sequence;
    std::exception_ptr error;
  };
  std::unique_ptr<KvCache> take_cache(int64_t capacity);
  void gather(const CancelToken* cancel);
  void compute(const CancelToken* cancel);
  void hand_out(bool on_device);
  std::vector<Finished> collect();

  const Model& model_;
  const Tokenizer& tokenizer_;
  const int size_;
  uint64_t next_key_ = 0;
  std::vector<std::unique_ptr<Member>> members_;  // in the order of add()
  std::vector<std::unique_ptr<KvCache>> free_;    // of answers that ended, for those to come
  // Of the running pass:
  std::vector<InputRow> rows_;
  std::vector<int32_t> logit_rows_;
  std::vector<std::pair<Member*, size_t>> takers_;  // in the order of their rows: how many logit rows each takes
  Drafts* drafts_ = nullptr;                        // of an answer that has some
  std::vector<float> logits_;                       // (logit rows, vocab); where the device samples, these:
  std::vector<SamplingRule> rules_;                 // (logit rows)
  std::vector<Sampled> sampled_;                    // (logit rows)
};

}  // namespace ke
