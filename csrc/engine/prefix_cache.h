// Keys and values of earlier prompts, kept with the encoded image that they begin with, or with the engine where they
// have no image, so that the next prompt that begins alike computes only what is new. A position's keys and values
// depend on the tokens and images up to it and on nothing else, bit for bit, so reading them back gives the answer that
// computing them again would give.
#pragma once
#include <list>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <vector>

#include "engine/prompt.h"

namespace ke {

class PrefixCache;

// Bounds what all prefix caches of an engine hold together: the one used longest ago is emptied first.
class PrefixBudget {
 public:
  explicit PrefixBudget(size_t bytes) : bytes_(bytes) {}
  size_t bytes() const { return bytes_; }

 private:
  friend class PrefixCache;
  using Order = std::list<PrefixCache*>;
  Order::iterator add(PrefixCache* cache);
  void remove(Order::iterator place);
  void touch(Order::iterator place);  // empties others where the sum has become too much

  const size_t bytes_;
  std::mutex mutex_;  // taken before any cache's own
  Order caches_;      // used last first
};

// One sequence from its first position on: the last prompt, perhaps with its answer. Any number of threads may use it.
class PrefixCache {
 public:
  enum class Scope { All, BeforeImages };  // BeforeImages: only what stands before the first image's rows
  PrefixCache(std::shared_ptr<PrefixBudget> budget, Scope scope);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // Fills `cache` with the positions that the prompt has in common with what is kept, the prompt's last one excepted
  // (its logits are wanted), and returns how many.
  size_t restore(const Model& model, const Prompt& prompt, KvCache& cache) const;

  // Saves the positions of `sequence` (the prompt's ids, perhaps with those of an answer), all of which `cache` holds;
  // as many as the budget allows. Only complete passes are offered, so a call that failed leaves nothing behind.
  void save(const Model& model, const Prompt& prompt, std::span<const int32_t> sequence, const KvCache& cache);

  // The same of an encoder-decoder model: what its encoder made of a whole prompt, which serves equal prompts alone.
  // nullptr where another one is kept.
  std::shared_ptr<const CrossMemory> restore_source(const Prompt& prompt) const;
  void save_source(const Prompt& prompt, std::shared_ptr<const CrossMemory> memory);

  void clear();
  size_t positions() const;
  size_t bytes() const;  // of memory

 private:
  struct PlacedImage {
    size_t first;     // as in Prompt
    uint64_t serial;  // of the embedding
    bool operator==(const PlacedImage&) const = default;
  };
  static std::vector<PlacedImage> places_of(const Prompt& prompt);
  // How many positions of the sequence, which begins with the prompt, are kept.
  size_t shared_positions(const Prompt& prompt, std::span<const int32_t> sequence) const;

  const std::shared_ptr<PrefixBudget> budget_;
  const Scope scope_;
  PrefixBudget::Order::iterator place_;
  mutable std::shared_mutex mutex_;  // shared while positions are copied out
  std::unique_ptr<KvCache> kv_;
  std::shared_ptr<const CrossMemory> source_;  // instead
  std::vector<int32_t> ids_;                   // of the positions kept
  std::vector<PlacedImage> images_;
};

// The same with the caches of the prompt's first image, or with the one of prompts without images.
size_t restore_prefix(const Model& model, const Prompt& prompt, KvCache& cache);
void save_prefix(const Model& model, const Prompt& prompt, std::span<const int32_t> sequence, const KvCache& cache);
// Of a prompt that an encoder reads.
std::shared_ptr<const CrossMemory> restore_source(const Prompt& prompt);
void save_source(const Prompt& prompt, std::shared_ptr<const CrossMemory> memory);

}  // namespace ke
