#include "emulate/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(KE_EMULATE_TSAN)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* sync);
void __tsan_release(void* sync);
}
#endif

namespace ke::emulate {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStack = 256 << 10;
#else
constexpr size_t kStack = 64 << 10;
#endif

// ke_emulate_switch(&from, to): saves the callee's registers on the running stack and its pointer in `from`, then takes
// up the stack `to`. A new stack holds zeros for the registers and the address of ke_emulate_start, which finds the
// fiber in a saved register.
#if defined(__x86_64__)
extern "C" void ke_emulate_switch(void** from, void* to);
extern "C" void ke_emulate_start();
asm(R"(
.text
.globl ke_emulate_switch
.hidden ke_emulate_switch
.type ke_emulate_switch, @function
ke_emulate_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.globl ke_emulate_start
.hidden ke_emulate_start
.type ke_emulate_start, @function
ke_emulate_start:
  movq %rbx, %rdi
  call ke_emulate_entry
  ud2
)");
#elif defined(__aarch64__)
extern "C" void ke_emulate_switch(void** from, void* to);
extern "C" void ke_emulate_start();
asm(R"(
.text
.globl ke_emulate_switch
.hidden ke_emulate_switch
.type ke_emulate_switch, %function
ke_emulate_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.globl ke_emulate_start
.hidden ke_emulate_start
.type ke_emulate_start, %function
ke_emulate_start:
  mov x0, x19
  bl ke_emulate_entry
  brk #0
)");
#endif

#if defined(__SANITIZE_ADDRESS__)
static thread_local const void* thread_stack = nullptr;  // the thread's own
static thread_local size_t thread_stack_size = 0;
#endif

void fiber_entry(Fiber* self) { Fiber::enter(self); }
extern "C" __attribute__((visibility("hidden"), used)) void ke_emulate_entry(void* self) {
  fiber_entry(static_cast<Fiber*>(self));
}

void Fiber::enter(Fiber* self) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &thread_stack, &thread_stack_size);
#endif
  self->body_(self->argument_);
}

void Fiber::start(void (*body)(void*), void* argument) {
  body_ = body, argument_ = argument;
#if defined(KE_EMULATE_TSAN)
  if (stack_) munmap(stack_, kStack);  // what the last body did there is nobody's any more
  stack_ = nullptr;
#endif
  if (!stack_) {
    stack_ = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack_ == MAP_FAILED) {
      stack_ = nullptr;
      throw std::bad_alloc();
    }
  }
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack_, kStack);  // the last body left without returning
  fake_stack_ = nullptr;
#endif
#if defined(KE_EMULATE_TSAN)
  if (tsan_) __tsan_destroy_fiber(tsan_);
  tsan_ = __tsan_create_fiber(0);
#endif
  auto* top = reinterpret_cast<uint64_t*>(static_cast<char*>(stack_) + kStack - 64);
#if defined(__x86_64__)
  uint64_t* sp = top - 7;  // so that ke_emulate_start begins at `top`, which is aligned as a call wants it
  for (int i = 0; i < 7; i++) sp[i] = 0;
  sp[4] = reinterpret_cast<uint64_t>(this);               // rbx
  sp[6] = reinterpret_cast<uint64_t>(&ke_emulate_start);  // return address
  context_ = sp;
#elif defined(__aarch64__)
  uint64_t* sp = top - 20;
  for (int i = 0; i < 20; i++) sp[i] = 0;
  sp[0] = reinterpret_cast<uint64_t>(this);                // x19
  sp[11] = reinterpret_cast<uint64_t>(&ke_emulate_start);  // x30
  context_ = sp;
#else
  (void)top;
  auto* u = static_cast<ucontext_t*>(context_ ? context_ : (context_ = new ucontext_t));
  getcontext(u);
  u->uc_stack.ss_sp = stack_, u->uc_stack.ss_size = kStack, u->uc_link = nullptr;
  const uint64_t self = reinterpret_cast<uint64_t>(this);
  makecontext(u, reinterpret_cast<void (*)()>(+[](unsigned low, unsigned high) {
                ke_emulate_entry(reinterpret_cast<void*>(uint64_t{high} << 32 | low));
              }),
              2, static_cast<unsigned>(self), static_cast<unsigned>(self >> 32));
#endif
}

Fiber::~Fiber() {
#if defined(KE_EMULATE_TSAN)
  if (stack_ && tsan_) __tsan_destroy_fiber(tsan_);
#endif
#if !defined(__x86_64__) && !defined(__aarch64__)
  delete static_cast<ucontext_t*>(context_);
#endif
  if (stack_) munmap(stack_, kStack);
}

void Fiber::switch_to(Fiber& from, Fiber& to, bool for_good) {
#if defined(KE_EMULATE_TSAN)
  if (!from.stack_) from.tsan_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.tsan_, 1);  // 1: no order of memory
#endif
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = to.stack_ ? to.stack_ : thread_stack;
  const size_t size = to.stack_ ? kStack : thread_stack_size;
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake_stack_, bottom, size);
#endif
  (void)for_good;
#if defined(__x86_64__) || defined(__aarch64__)
  ke_emulate_switch(&from.context_, to.context_);
#else
  if (!from.context_) from.context_ = new ucontext_t;
  swapcontext(static_cast<ucontext_t*>(from.context_), static_cast<ucontext_t*>(to.context_));
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake_stack_, nullptr, nullptr);
#endif
}

void release([[maybe_unused]] void* sync) {
#if defined(KE_EMULATE_TSAN)
  __tsan_release(sync);
#endif
}

void acquire([[maybe_unused]] void* sync) {
#if defined(KE_EMULATE_TSAN)
  __tsan_acquire(sync);
#endif
}

}  // namespace ke::emulate
