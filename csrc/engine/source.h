// What the encoder of an encoder-decoder model reads for an answer: the whole prompt. The decoder's own sequence begins
// with one id, and all of its rows look at what the encoder made of the prompt.
#pragma once
#include <memory>
#include <mutex>

#include "engine/prompt.h"

namespace ke {

// Any number of threads may use it.
class Source {
 public:
  explicit Source(Prompt prompt) : prompt_(std::move(prompt)) {}

  const Prompt& prompt() const { return prompt_; }
  // Encodes the prompt, unless that was done here or, of an equal prompt, is kept (prefix_cache.h), and keeps it; to be
  // called before the first row is computed. Returns how many of its positions were not computed: none or all.
  size_t read(const Model& model, const CancelToken* cancel) const;
  // What rows look at; after read().
  const CrossMemory* memory() const;

 private:
  const Prompt prompt_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const CrossMemory> memory_;
};

// The decoder's prompt where `prompt` is read by an encoder.
Prompt behind_encoder(const Model& model, Prompt prompt);

// Reads the prompt's source, if it has one; else 0.
size_t read_source(const Model& model, const Prompt& prompt, const CancelToken* cancel);

}  // namespace ke
