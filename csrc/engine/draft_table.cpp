#include "engine/draft_table.h"

#include <algorithm>

namespace ke {

constexpr double kMemory = 256;      // tries after which older ones count half
constexpr uint32_t kMostAhead = 16;  // so that a new habit outvotes an old one soon

static bool holds(std::span<const int32_t> ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

DraftTable::DraftTable(std::vector<int32_t> kinds) : kinds_(std::move(kinds)), slots_(kSlots) {}

int32_t DraftTable::kind(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < kinds_.size() ? kinds_[static_cast<size_t>(id)] : id;
}

// Steps of splitmix64 over the kinds.
std::pair<size_t, uint32_t> DraftTable::place(std::span<const int32_t> text, size_t length) const {
  uint64_t hash = length;
  for (int32_t id : text.last(length)) {
    uint64_t z = hash + static_cast<uint32_t>(kind(id)) + 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    hash = z ^ (z >> 31);
  }
  return {static_cast<size_t>(hash % kSlots), static_cast<uint32_t>(hash / kSlots)};
}

const DraftTable::Slot* DraftTable::find(std::span<const int32_t> text, size_t length) const {
  const auto [at, tag] = place(text, length);
  const Slot& slot = slots_[at];
  return slot.count > 0 && slot.tag == tag ? &slot : nullptr;
}

size_t DraftTable::column(const Slot& slot) { return std::min<size_t>(slot.count, kCounts) - 1; }

std::optional<DraftTable::Guess> DraftTable::guess(std::span<const int32_t> text,
                                                   std::span<const int32_t> banned) const {
  std::optional<Guess> best;
  for (size_t length = std::min(kContext, text.size()); length > 0; length--) {
    const Slot* slot = find(text, length);
    if (!slot || holds(banned, slot->id)) continue;
    const Record& record = records_[length - 1][column(*slot)];
    const double probability = record.came / record.tries;
    if (!best || probability > best->probability) best = Guess{slot->id, probability};
  }
  return best;
}

void DraftTable::learn(std::span<const int32_t> text, std::span<const int32_t> banned, int32_t id) {
  for (size_t length = std::min(kContext, text.size()); length > 0; length--) {
    const auto [at, tag] = place(text, length);
    Slot& slot = slots_[at];
    const bool known = slot.count > 0 && slot.tag == tag;
    if (known && !holds(banned, slot.id)) {
      Record& record = records_[length - 1][column(slot)];
      if (slot.id == id) record.came++;
      if (++record.tries >= kMemory) record.came /= 2, record.tries /= 2;
    }
    if (kind(id) < 0) continue;
    if (known && slot.id == id)
      slot.count = std::min(slot.count + 1, kMostAhead);
    else if (slot.count > 1)
      slot.count--;
    else
      slot = {tag, id, 1};
  }
}

void DraftTable::note(std::span<const int32_t> text, int32_t id) {
  if (kind(id) < 0) return;
  for (size_t length = std::min(kContext, text.size()); length > 0; length--) {
    const auto [at, tag] = place(text, length);
    if (slots_[at].count == 0) slots_[at] = {tag, id, 1};
  }
}

}  // namespace ke
