#include "engine/batch.h"

#include <algorithm>

#include "base/error.h"
#include "base/limits.h"

namespace ke {

// Of a pass with learned drafts: beyond, arithmetic decides and not the weights' bytes, and logits take memory.
constexpr size_t kMostDecodeRows = 32;

Batch::Batch(const Model& model, const Tokenizer& tokenizer, int size)
    : model_(model), tokenizer_(tokenizer), size_(size) {
  KE_CHECK(size >= 1 && size <= limits::kMaxBatch, InvalidRequest, "batch size must be in 1..", limits::kMaxBatch,
           ", got ", size);
}

uint64_t Batch::add(Prompt prompt, const GenerateParams& params, OnToken on_token,
                    std::shared_ptr<const CancelToken> cancel) {
  KE_CHECK(open() < size_, InvalidRequest, "the batch has room for ", size_, " answers and all of them are open");
  KE_CHECK(params.num_beams == 1, InvalidRequest, "a batch takes num_beams 1, got ", params.num_beams);
  KE_CHECK(!params.contrastive(), InvalidRequest, "a batch takes neither degeneration_penalty nor image_weight");
  auto member = std::make_unique<Member>();
  member->on_token = std::move(on_token);
  member->cancel = std::move(cancel);
  member->sequence = std::make_unique<Sequence>(model_, tokenizer_, std::move(prompt), params, member->on_token);
  member->cache = take_cache(member->sequence->capacity());
  member->sequence->start(*member->cache);
  member->key = next_key_++;
  members_.push_back(std::move(member));
  return members_.back()->key;
}

// The smallest free cache that is large enough, else the largest one, grown; so that answers of one kind, which need
// about as many positions each, go on in the same memory.
std::unique_ptr<KvCache> Batch::take_cache(int64_t capacity) {
  if (free_.empty()) return model_.new_cache(capacity);
  const auto rank = [&](const std::unique_ptr<KvCache>& c) {
    return c->capacity >= capacity ? std::pair(0, c->capacity) : std::pair(1, -c->capacity);
  };
  const auto best =
      std::min_element(free_.begin(), free_.end(), [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
  std::unique_ptr<KvCache> cache = std::move(*best);
  free_.erase(best);
  if (cache->capacity >= capacity) return cache;
  cache.reset();  // before the larger one is allocated: nothing in it is needed
  return model_.new_cache(capacity);
}

std::vector<Batch::Finished> Batch::step(const CancelToken* cancel) {
  KE_CHECK(open() > 0, InvalidRequest, "the batch is empty: add an answer before a step");
  try {
    gather(cancel);
    if (!rows_.empty()) compute(cancel);
    return collect();
  } catch (...) {
    clear();
    throw;
  }
}

// The rows of the next pass: those of all that decode, then prompt rows of the first that waits for its prompt. One
// prompt at a time: the others' tokens then ride on as many passes of prompts as possible.
void Batch::gather(const CancelToken* cancel) {
  rows_.clear();
  logit_rows_.clear();
  takers_.clear();
  drafts_ = nullptr;
  size_t decoding = 0;
  for (const auto& m : members_) decoding += !m->sequence->in_prompt();
  DraftRoom room{std::max<size_t>(1, decoding), kMostDecodeRows > decoding ? kMostDecodeRows - decoding : 0};
  const auto feed = [&](Member& m, size_t most) {
    const size_t count = m.sequence->next_rows(most, rows_, logit_rows_, room);
    if (count == 0) return;
    takers_.push_back({&m, count});
    room.drafts -= std::min(room.drafts, count - 1);
    if (Drafts* d = m.sequence->prompt().drafts; d && d->on()) drafts_ = d;
  };
  Member* prompt = nullptr;
  for (const auto& m : members_) {
    if (m->cancel && m->cancel->cancelled())
      m->error = std::make_exception_ptr(Error(ErrorCode::Cancelled, "cancelled"));
    else if (!m->sequence->in_prompt())
      feed(*m, kRowsPerPass);
    else if (!prompt)
      prompt = m.get();
  }
  if (!prompt) return;
  if (prompt->sequence->stored() == 0) prompt->sequence->read_source(cancel);
  feed(*prompt, kRowsPerPass > rows_.size() ? kRowsPerPass - rows_.size() : 1);
}

void Batch::compute(const CancelToken* cancel) {
  const bool on_device = model_.samples_on_device() &&
                         std::none_of(takers_.begin(), takers_.end(),
                                      [](const auto& taker) { return taker.first->sequence->needs_logits(); });
  if (on_device && !logit_rows_.empty()) {
    rules_.resize(logit_rows_.size());
    sampled_.resize(logit_rows_.size());
    std::span<SamplingRule> rest = rules_;
    for (auto [member, count] : takers_) {
      member->sequence->sampling_rules(rest.first(count));
      rest = rest.subspan(count);
    }
    model_.sample(rows_, logit_rows_, rules_, sampled_, cancel);
  } else {
    logits_.resize(logit_rows_.size() * static_cast<size_t>(model_.info().vocab));
    const auto start = std::chrono::steady_clock::now();
    model_.forward(rows_, logit_rows_, logits_.data(), cancel);
    if (drafts_) drafts_->took(rows_.size(), ms_since(start));
  }
  hand_out(on_device);
}

void Batch::hand_out(bool on_device) {
  std::span<const float> rest = logits_;
  std::span<const Sampled> sampled = sampled_;
  for (auto [member, count] : takers_) {
    try {
      if (on_device) {
        const std::span<const Sampled> own = sampled.first(count);
        sampled = sampled.subspan(own.size());
        member->sequence->take_sampled(own);
      } else {
        const std::span<const float> own = rest.first(count * static_cast<size_t>(model_.info().vocab));
        rest = rest.subspan(own.size());
        member->sequence->take_logits(own);
      }
    } catch (...) {  // its own: the others go on
      member->error = std::current_exception();
    }
  }
}

std::vector<Batch::Finished> Batch::collect() {
  std::vector<Finished> out;
  for (auto& m : members_) {
    if (!m->error && !m->sequence->done()) continue;
    out.push_back({m->key, m->error ? Generation{} : std::move(m->sequence->result()), m->error});
    free_.push_back(std::move(m->cache));
    m.reset();
  }
  std::erase(members_, nullptr);
  return out;
}

void Batch::clear() {
  for (auto& m : members_) free_.push_back(std::move(m->cache));
  members_.clear();
}

}  // namespace ke
