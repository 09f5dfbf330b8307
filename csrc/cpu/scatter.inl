// Values that go to places a step apart.
#pragma once
#include <stdint.h>

namespace ke::cpu::KE_ISA {
namespace {

// values[i * step] = x[i]. Written so that GCC does not make slow scatter instructions of it.
template <class Value>
inline void scatter(const Value* x, int n, Value* to, int64_t step) {
  for (int i = 0; i < n; ++i) {
    to[i * step] = x[i];
    asm volatile("" ::: "memory");
  }
}

}  // namespace
}  // namespace ke::cpu::KE_ISA
