#include "engine/prefix_cache.h"

#include <algorithm>

#include "base/error.h"

namespace ke {

// ---- budget

PrefixBudget::Order::iterator PrefixBudget::add(PrefixCache* cache) {
  std::lock_guard lock(mutex_);
  caches_.push_front(cache);
  return caches_.begin();
}

void PrefixBudget::remove(Order::iterator place) {
  std::lock_guard lock(mutex_);
  caches_.erase(place);
}

void PrefixBudget::touch(Order::iterator place) {
  std::lock_guard lock(mutex_);
  caches_.splice(caches_.begin(), caches_, place);
  size_t total = 0;
  for (PrefixCache* cache : caches_) {
    const size_t held = cache->bytes();
    if (total + held <= bytes_ || cache == caches_.front())
      total += held;
    else
      cache->clear();
  }
}

// ---- cache

PrefixCache::PrefixCache(std::shared_ptr<PrefixBudget> budget, Scope scope)
    : budget_(std::move(budget)), scope_(scope) {
  place_ = budget_->add(this);  // last: from now on other threads may look at it
}

PrefixCache::~PrefixCache() { budget_->remove(place_); }

size_t PrefixCache::shared_positions(const Prompt& prompt, std::span<const int32_t> sequence) const {
  size_t n = std::mismatch(ids_.begin(), ids_.end(), sequence.begin(), sequence.end()).first - ids_.begin();
  for (size_t i = 0; i < std::max(images_.size(), prompt.images.size()); i++) {
    const PlacedImage here = i < images_.size() ? images_[i] : PlacedImage{n, 0};
    const PlacedImage there = i < prompt.images.size()
                                  ? PlacedImage{prompt.images[i].first, prompt.images[i].image->serial}
                                  : PlacedImage{n, 0};
    if (std::min(here.first, there.first) >= n) break;
    // One has an image where the other has another, or tokens that are spelt like an image's places.
    if (here != there) return std::min(here.first, there.first);
  }
  return n;
}

size_t PrefixCache::restore(const Model& model, const Prompt& prompt, KvCache& cache) const {
  std::shared_lock lock(mutex_);
  if (!kv_) return 0;
  const size_t n = std::min(shared_positions(prompt, prompt.ids), prompt.ids.size() - 1);
  if (n > 0) model.copy_cache(*kv_, cache, 0, static_cast<int64_t>(n));
  return n;
}

void PrefixCache::save(const Model& model, const Prompt& prompt, std::span<const int32_t> sequence,
                       const KvCache& cache) {
  const size_t affordable = budget_->bytes() / (cache.bytes() / static_cast<size_t>(cache.capacity));
  const size_t allowed = scope_ == Scope::All ? sequence.size() : prompt.images.at(0).first;
  const size_t n = std::min(allowed, affordable);
  {
    std::unique_lock lock(mutex_);
    const size_t begin = std::min(shared_positions(prompt, sequence), n);
    if (begin < n) {
      ids_.resize(begin);  // should memory be refused below, what is left is whole
      std::erase_if(images_, [&](const PlacedImage& p) { return p.first >= begin; });
      std::vector<int32_t> ids(sequence.begin(), sequence.begin() + n);
      std::vector<PlacedImage> images;
      for (const Prompt::PlacedImage& p : prompt.images)
        if (p.first < n) images.push_back({p.first, p.image->serial});
      try {
        if (!kv_) kv_ = model.new_cache(static_cast<int64_t>(n));
        model.copy_cache(cache, *kv_, static_cast<int64_t>(begin), static_cast<int64_t>(n));
      } catch (const Error& e) {
        if (e.code() != ErrorCode::OutOfMemory) throw;
        return;  // the answer does not need it
      }
      ids_ = std::move(ids);
      images_ = std::move(images);
    }
  }
  budget_->touch(place_);
}

std::shared_ptr<const CrossMemory> PrefixCache::restore_source(const Prompt& prompt) const {
  std::shared_lock lock(mutex_);
  return source_ && ids_ == prompt.ids && images_ == places_of(prompt) ? source_ : nullptr;
}

void PrefixCache::save_source(const Prompt& prompt, std::shared_ptr<const CrossMemory> memory) {
  if (memory->bytes() > budget_->bytes()) return;
  {
    std::unique_lock lock(mutex_);
    source_ = std::move(memory);
    ids_ = prompt.ids;
    images_ = places_of(prompt);
  }
  budget_->touch(place_);
}

std::vector<PrefixCache::PlacedImage> PrefixCache::places_of(const Prompt& prompt) {
  std::vector<PlacedImage> places;
  for (const Prompt::PlacedImage& p : prompt.images) places.push_back({p.first, p.image->serial});
  return places;
}

void PrefixCache::clear() {
  std::unique_lock lock(mutex_);
  kv_.reset();
  source_.reset();
  ids_.clear();
  images_.clear();
}

size_t PrefixCache::positions() const {
  std::shared_lock lock(mutex_);
  return ids_.size();
}

size_t PrefixCache::bytes() const {
  std::shared_lock lock(mutex_);
  return (kv_ ? kv_->bytes() : 0) + (source_ ? source_->bytes() : 0);
}

// ---- by prompt

size_t restore_prefix(const Model& model, const Prompt& prompt, KvCache& cache) {
  if (prompt.images.empty()) return prompt.text_prefix ? prompt.text_prefix->restore(model, prompt, cache) : 0;
  const ImageEmbedding& first = *prompt.images[0].image;
  size_t n = first.prefix ? first.prefix->restore(model, prompt, cache) : 0;
  if (n == 0 && first.shared_prefix) n = first.shared_prefix->restore(model, prompt, cache);
  return n;
}

void save_prefix(const Model& model, const Prompt& prompt, std::span<const int32_t> sequence, const KvCache& cache) {
  if (prompt.images.empty()) {
    if (prompt.text_prefix) prompt.text_prefix->save(model, prompt, sequence, cache);
    return;
  }
  const ImageEmbedding& first = *prompt.images[0].image;
  for (PrefixCache* kept : {first.prefix.get(), first.shared_prefix.get()})
    if (kept) kept->save(model, prompt, sequence, cache);
}

static PrefixCache* source_cache(const Prompt& prompt) {
  return prompt.images.empty() ? prompt.text_prefix : prompt.images[0].image->prefix.get();
}

std::shared_ptr<const CrossMemory> restore_source(const Prompt& prompt) {
  const PrefixCache* kept = source_cache(prompt);
  return kept ? kept->restore_source(prompt) : nullptr;
}

void save_source(const Prompt& prompt, std::shared_ptr<const CrossMemory> memory) {
  if (PrefixCache* kept = source_cache(prompt)) kept->save_source(prompt, std::move(memory));
}

}  // namespace ke
