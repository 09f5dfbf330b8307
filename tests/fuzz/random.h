// The fuzzers' source of chance: a case is (target, seed, number), and the same three always make the same bytes.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace fuzz {

using Bytes = std::vector<uint8_t>;

class Random {
 public:
  Random(uint64_t seed, uint64_t number) : state_(seed * 0x9E3779B97F4A7C15u + number * 0xD1B54A32D192ED03u) {
    for (int i = 0; i < 3; ++i) next();
  }

  uint64_t next() {  // splitmix64 (Steele, Lea, Flood 2014)
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
  }

  uint64_t below(uint64_t n) { return n ? next() % n : 0; }
  bool chance(uint64_t one_in) { return below(one_in) == 0; }

  template <class T>
  T pick(std::initializer_list<T> values) {
    return values.begin()[below(values.size())];
  }

  template <class Container>
  auto& pick_of(Container& values) {
    return values[below(values.size())];
  }

  // A number that breaks careless arithmetic, or one near old.
  uint64_t nasty(uint64_t old = 0) {
    static constexpr uint64_t fixed[] = {0,
                                         1,
                                         2,
                                         3,
                                         7,
                                         8,
                                         31,
                                         32,
                                         33,
                                         63,
                                         64,
                                         127,
                                         128,
                                         255,
                                         256,
                                         1023,
                                         1024,
                                         4095,
                                         4096,
                                         65535,
                                         65536,
                                         1u << 20,
                                         (1u << 22) + 1,
                                         0x7FFFFFFF,
                                         0x80000000,
                                         0xFFFFFFFF,
                                         0x100000000,
                                         uint64_t{1} << 61,
                                         uint64_t{1} << 62,
                                         (uint64_t{1} << 63) - 1,
                                         uint64_t{1} << 63,
                                         ~uint64_t{0} - 63,
                                         ~uint64_t{0} - 7,
                                         ~uint64_t{0}};
    switch (below(4)) {
      case 0:
        return old + pick<uint64_t>({1, 2, 8, ~uint64_t{0}, ~uint64_t{1}});
      case 1:
        return old << below(4) | below(2);
      default:
        return fixed[below(std::size(fixed))];
    }
  }

  float nasty_float() {
    return pick<float>({0.0f, -0.0f, 1.0f, -1.0f, 1e-45f, 1e-38f, 3.4e38f, -3.4e38f, 1e30f, __builtin_inff(),
                        -__builtin_inff(), __builtin_nanf(""), 65504.0f, 1e-12f, 0.1f});
  }

  // Text of up to length characters: words, tags, controls, all lengths of UTF-8, sometimes ill-formed.
  std::string text(size_t length) {
    std::string out;
    for (size_t i = 0; i < length; ++i)
      out += pick<const char*>({"a",
                                "An",
                                " ",
                                "image",
                                "\xE2\x96\x81",
                                "\xC3\xA9",
                                "\xE4\xB8\xAD",
                                "\xF0\x9F\x91\x8D",
                                "<image>",
                                "</s>",
                                "<patch_index_0000>",
                                "<phrase>",
                                "</object>",
                                "\n",
                                "\x1b[31m",
                                ".",
                                "{question}",
                                "<",
                                ">",
                                "e\xCC\x81"});
    if (chance(8)) out += pick<const char*>({"\xff", "\xC0\x80", "\xED\xA0\x80", "\xE2\x96", "\xF4\x90\x80\x80"});
    return out;
  }

  // Flips, overwrites, inserts, removes or repeats bytes in place.
  void damage(Bytes& b, int times) {
    for (int i = 0; i < times && !b.empty(); ++i) {
      const size_t at = below(b.size());
      const size_t n = std::min<size_t>(b.size() - at, 1 + below(8));
      switch (below(7)) {
        case 0:
          b[at] = static_cast<uint8_t>(next());
          break;
        case 1:
          b[at] ^= static_cast<uint8_t>(1 << below(8));
          break;
        case 2:
          for (size_t k = 0, v = nasty(); k < n; ++k, v >>= 8) b[at + k] = static_cast<uint8_t>(v);
          break;
        case 3:
          b.erase(b.begin() + static_cast<long>(at), b.begin() + static_cast<long>(at + n));
          break;
        case 4: {
          const Bytes copy(b.begin() + static_cast<long>(at), b.begin() + static_cast<long>(at + n));
          b.insert(b.begin() + static_cast<long>(below(b.size())), copy.begin(), copy.end());
          break;
        }
        case 5:
          b.insert(b.begin() + static_cast<long>(at), n, static_cast<uint8_t>(next()));
          break;
        default:
          if (chance(8)) b.resize(at);
      }
    }
  }

 private:
  uint64_t state_;
};

}  // namespace fuzz
