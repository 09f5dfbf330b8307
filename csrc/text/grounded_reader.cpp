#include "text/grounded_reader.h"

#include <algorithm>

namespace ke {

GroundedReader::GroundedReader(const Tokenizer& tokenizer, int64_t bins)
    : tokenizer_(&tokenizer), decoder_(tokenizer, /*keep_tags=*/true), tags_(bins) {}

void GroundedReader::push(int32_t id) {
  const bool silent = tokenizer_->bytes(id).empty();
  const size_t held = decoder_.held();
  const std::string text = decoder_.push(id);
  const int32_t index = next_index_++;
  if (silent) return;
  // A run of bytes that this token ends comes before the token's own text.
  const size_t before = tokenizer_->joining(id) == Joining::Whole && held > 0
                            ? text.size() - std::min(text.size(), tokenizer_->bytes(id).size())
                            : 0;
  places_.add(tags_.bytes() + before, index, text.empty() && decoder_.held() > held);
  append(text);
}

void GroundedReader::finish() { append(decoder_.finish()); }

void GroundedReader::append(std::string_view text) {
  tags_.append(text);
  for (size_t i = entities_.size(); i < tags_.entities().size(); ++i) {
    const FoundEntity& found = tags_.entities()[i];
    Entity& entity = entities_.emplace_back(found.entity);
    for (const auto& [first, second] : found.locations)
      entity.tokens.push_back({places_.token_at(first), places_.token_at(second)});
    if (found.has_phrase)
      entity.phrase_tokens = {places_.first_token_at(found.phrase_begin), places_.token_at(found.phrase_end - 1) + 1};
  }
}

Entity GroundedReader::entity(size_t i) const {
  Entity entity = entities_[i];
  entity.start -= tags_.leading();
  entity.end -= tags_.leading();
  return entity;
}

Grounded GroundedReader::grounded() const {
  if (decoder_.held() > 0) {
    GroundedReader whole = *this;
    whole.finish();
    return whole.grounded();
  }
  Grounded out{std::string(tags_.text()), {}};
  for (size_t i = 0; i < entities_.size(); ++i) out.entities.push_back(entity(i));
  return out;
}

}  // namespace ke
