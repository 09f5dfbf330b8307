// What hostile files get wrong: each mutation is one of the root causes that runtimes were broken with, anywhere.
#include <algorithm>
#include <cstring>

#include "gguf_draft.h"

namespace fuzz {
namespace {

void overwrite(Bytes& b, size_t at, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes && at + i < b.size(); ++i, value >>= 8) b[at + i] = static_cast<uint8_t>(value);
}

uint64_t number_at(const Bytes& b, size_t at, size_t bytes) {
  uint64_t v = 0;
  for (size_t i = std::min(bytes, b.size() - at); i-- > 0;) v = v << 8 | b[at + i];
  return v;
}

// A value of a random type.
Bytes random_value(Random& random, uint32_t* type) {
  *type = static_cast<uint32_t>(random.below(14));
  static constexpr int bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8, 4};
  if (*type == kString) return string(random.text(random.below(6)));
  if (*type != kArray) return whole(random.nasty(), bytes[*type]);
  Bytes out = whole(random.pick<uint32_t>({kU8, kI32, kU32, kF32, kBool, kString, kArray}), 4);
  const uint64_t n = random.below(5);
  put(out, random.chance(3) ? random.nasty(n) : n, 8);
  for (uint64_t i = 0; i < n * random.below(9); ++i) out.push_back(static_cast<uint8_t>(random.next()));
  return out;
}

void change_number(Random& random, Entry& e) {
  if (e.value.size() >= 12 && e.type == kArray) {  // element type, count, or an element
    const size_t at = random.pick<size_t>({0, 4, 12});
    if (at == 12 && e.value.size() > 12) {
      const size_t element = 12 + random.below((e.value.size() - 12) / 4 + 1) * 4;
      if (element < e.value.size()) overwrite(e.value, element, random.nasty(number_at(e.value, element, 4)), 4);
    } else {
      const size_t bytes = at == 0 ? 4 : 8;
      overwrite(e.value, at, at == 0 ? random.below(14) : random.nasty(number_at(e.value, 4, 8)), bytes);
    }
  } else if (e.type == kF32) {
    e.value = real(random.nasty_float());
  } else if (!e.value.empty()) {
    const size_t bytes = std::min<size_t>(e.value.size(), e.type == kString ? 8 : e.value.size());
    overwrite(e.value, 0, random.nasty(number_at(e.value, 0, bytes)), bytes);
  }
}

void mutate_metadata(Random& random, Draft& d) {
  if (d.entries.empty()) return;
  const size_t i = random.below(d.entries.size());
  Entry& e = d.entries[i];
  switch (random.below(12)) {
    case 0:
      d.entries.erase(d.entries.begin() + static_cast<long>(i));
      return;
    case 1:
      d.entries.push_back(e);
      return;
    case 2:
      e.type = static_cast<uint32_t>(random.chance(4) ? random.nasty() : random.below(14));
      return;
    case 3:
      e.value = random_value(random, &e.type);
      return;
    case 4:
      e.key = random.chance(2) ? random.text(1 + random.below(4)) : random.pick_of(d.entries).key;
      e.key_length = e.key.size();
      return;
    case 5:
      e.key_length = random.nasty(e.key_length);
      return;
    case 6:
      random.damage(e.value, 1 + static_cast<int>(random.below(3)));
      return;
    case 7:
      if (e.type == kString) e.value = string(random.text(random.below(9)));
      return;
    case 8:
      std::swap(e.value, random.pick_of(d.entries).value);
      return;
    default:
      change_number(random, e);
  }
}

// NaN, infinities, denormals and extreme scales where weights are.
void poison(Random& random, Bytes& data) {
  for (uint64_t n = 1 + random.below(4); n > 0; --n) {
    const size_t at = random.below(data.size() / 4 + 1) * 4;
    const Bytes bad = random.chance(2)
                          ? real(random.nasty_float())
                          : whole(random.pick<uint16_t>({0x7C00, 0xFC00, 0x7E00, 0x7BFF, 0x0001, 0x8000, 0xFFFF}), 2);
    for (size_t k = 0; k < bad.size() && at + k < data.size(); ++k) data[at + k] = bad[k];
  }
}

void mutate_tensor(Random& random, Draft& d) {
  if (d.tensors.empty()) return;
  const size_t i = random.below(d.tensors.size());
  TensorDraft& t = d.tensors[i];
  switch (random.below(15)) {
    case 0:
      d.tensors.erase(d.tensors.begin() + static_cast<long>(i));
      return;
    case 1: {
      const TensorDraft copy = t;
      d.tensors.push_back(copy);
      return;
    }
    case 2:
      t.name = random.chance(2) ? random.text(1 + random.below(3)) : random.pick_of(d.tensors).name;
      t.name_length = t.name.size();
      return;
    case 3:
      t.name_length = random.nasty(t.name_length);
      return;
    case 4:
      t.rank = static_cast<uint32_t>(random.nasty(t.rank));
      return;
    case 5:
      if (!t.dims.empty()) {
        uint64_t& dim = random.pick_of(t.dims);
        dim = random.nasty(dim);
      }
      return;
    case 6:
      std::reverse(t.dims.begin(), t.dims.end());
      return;
    case 7:
      t.dims.push_back(random.chance(2) ? 1 : random.nasty());
      t.rank = static_cast<uint32_t>(t.dims.size());
      return;
    case 8:
      t.type = static_cast<uint32_t>(random.chance(3) ? random.nasty() : random.below(40));
      return;
    case 9:
      t.offset = random.nasty(t.offset);
      return;
    case 10:
      t.offset = random.pick_of(d.tensors).offset;
      return;
    case 11:
      t.data.resize(random.below(t.data.size() + 1));
      if (random.chance(2)) d.place();
      return;
    case 12:
      for (uint8_t& b : t.data) b = static_cast<uint8_t>(random.next());
      return;
    default:
      poison(random, t.data);
  }
}

void mutate_header(Random& random, Draft& d) {
  switch (random.below(6)) {
    case 0:
      d.version = static_cast<uint32_t>(random.nasty(d.version));
      return;
    case 1:
      d.extra_tensors = static_cast<int64_t>(random.nasty());
      return;
    case 2:
      d.extra_entries = static_cast<int64_t>(random.nasty());
      return;
    case 3:
      d.magic = random.pick<const char*>({"GGUF", "FUGG", "ggml", "PK\3\4", "\x80\x02}q", "GGU"});
      return;
    default:
      if (Entry* e = d.find("general.alignment")) {
        e->value =
            whole(random.pick<uint32_t>({0, 1, 2, 8, 16, 24, 32, 63, 64, 128, 4096, 65536, 131072, 1u << 31, ~0u}), 4);
        if (random.chance(2)) {
          d.alignment = std::max<uint64_t>(1, number_at(e->value, 0, 4) % 65537);
          d.place();
        }
      }
  }
}

}  // namespace

void mutate(Random& random, Draft& draft) {
  const uint64_t most = random.pick<uint64_t>({0, 1, 1, 1, 2, 3, 6});
  for (uint64_t i = 0; i < most; ++i) {
    const uint64_t where = random.below(10);
    if (where < 5) {
      mutate_metadata(random, draft);
    } else if (where < 9) {
      mutate_tensor(random, draft);
    } else {
      mutate_header(random, draft);
    }
  }
}

}  // namespace fuzz
