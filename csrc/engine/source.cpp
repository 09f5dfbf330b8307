#include "engine/source.h"

#include "base/error.h"
#include "engine/prefix_cache.h"

namespace ke {

size_t Source::read(const Model& model, const CancelToken* cancel) const {
  const std::lock_guard lock(mutex_);
  if (memory_) return prompt_.ids.size();
  memory_ = restore_source(prompt_);
  if (memory_) return prompt_.ids.size();
  std::vector<InputRow> rows;
  for (size_t i = 0; i < prompt_.ids.size(); i++) rows.push_back(prompt_.row(i, nullptr));
  memory_ = model.read_source(rows, cancel);
  save_source(prompt_, memory_);
  return 0;
}

const CrossMemory* Source::memory() const {
  const std::lock_guard lock(mutex_);
  KE_ASSERT(memory_);
  return memory_.get();
}

Prompt behind_encoder(const Model& model, Prompt prompt) {
  Prompt out;
  out.ids = {*model.info().answer_start};
  out.source = std::make_shared<const Source>(std::move(prompt));
  return out;
}

size_t read_source(const Model& model, const Prompt& prompt, const CancelToken* cancel) {
  return prompt.source ? prompt.source->read(model, cancel) : 0;
}

}  // namespace ke
