// Fibers: functions with stacks of their own that hand control to each other by name. Made for running device code on
// the processor, where every thread of a group is a fiber; known to ASan and TSan.
#pragma once
#include <cstddef>

namespace ke::emulate {

class Fiber {
 public:
  Fiber() = default;  // the thread that runs already
  // body(argument) begins at the first switch to this fiber; it must end by switching away for good. The stack is kept
  // for the next body.
  void start(void (*body)(void*), void* argument);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Leaves `from`, which runs, and goes on with `to`; for_good: `from` ends. Orders no memory accesses in the eyes of
  // TSan: what orders them is release() and acquire().
  static void switch_to(Fiber& from, Fiber& to, bool for_good = false);

 private:
  static void enter(Fiber* self);
  friend void fiber_entry(Fiber* self);
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  void* context_ = nullptr;  // saved stack pointer, or ucontext_t
  void* stack_ = nullptr;
  void* tsan_ = nullptr;
  void* fake_stack_ = nullptr;  // ASan's
};

// What a device's barrier, and nothing else, does: accesses before release(x) happen before those after acquire(x).
void release(void* sync);
void acquire(void* sync);

}  // namespace ke::emulate
