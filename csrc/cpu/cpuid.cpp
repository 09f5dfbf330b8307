#include "cpu/cpuid.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace ke::cpu {

namespace {

#if defined(__x86_64__) || defined(__i386__)

// The register sets that the operating system saves (XCR0). Asked with the raw opcode: this file has baseline flags.
uint64_t saved_state() {
  uint32_t low, high;
  asm volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));  // xgetbv
  return static_cast<uint64_t>(high) << 32 | low;
}

// Whether this process may use the tile registers. Linux wants to be asked: their 8 KB are saved for those threads
// alone that have used them, and it refuses a process that has given a thread too small a stack for signals.
bool may_use_tiles() {
#ifdef __linux__
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return true;
#endif
}

uint32_t detect() {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  const bool osxsave = c >> 27 & 1, fma = c >> 12 & 1, avx = c >> 28 & 1, f16c = c >> 29 & 1;
  if (!osxsave || !avx) return 0;
  const uint64_t state = saved_state();
  if ((state & 0x06) != 0x06) return 0;     // SSE and AVX registers
  const bool zmm = (state & 0xe0) == 0xe0;  // mask registers and both kinds of 512-bit registers
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  const bool avx2 = b >> 5 & 1;
  const bool avx512 = (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1);  // F, DQ, BW, VL
  const bool vnni512 = c >> 11 & 1;
  const bool amx = (d >> 24 & 1) && (d >> 25 & 1) && (state & 0x60000) == 0x60000;  // tiles, 8-bit products
  uint32_t a1 = 0;
  if (a >= 1 && !__get_cpuid_count(7, 1, &a1, &b, &c, &d)) a1 = 0;

  uint32_t features = 0;
  if (avx2 && fma && f16c) features |= kAvx2;
  if ((features & kAvx2) && (a1 >> 4 & 1)) features |= kAvxVnni;
  if ((features & kAvx2) && avx512 && zmm) features |= kAvx512;
  if ((features & kAvx512) && vnni512) features |= kAvx512Vnni;
  if ((features & kAvx512Vnni) && amx && may_use_tiles()) features |= kAmxInt8;
  return features;
}

#elif defined(__aarch64__) && defined(__linux__)

// The bits of <asm/hwcap.h>, which older systems' headers lack.
uint32_t detect() {
  constexpr unsigned long kAsimdDp = 1ul << 20, kI8mm = 1ul << 13;
  uint32_t features = 0;
  if (getauxval(AT_HWCAP) & kAsimdDp) features |= kNeonDot;
  if ((features & kNeonDot) && (getauxval(AT_HWCAP2) & kI8mm)) features |= kNeonI8mm;
  return features;
}

#elif defined(__aarch64__) && defined(__APPLE__)

bool has(const char* name) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value;
}

uint32_t detect() {
  uint32_t features = 0;
  if (has("hw.optional.arm.FEAT_DotProd")) features |= kNeonDot;
  if ((features & kNeonDot) && has("hw.optional.arm.FEAT_I8MM")) features |= kNeonI8mm;
  return features;
}

#else

uint32_t detect() { return 0; }

#endif

}  // namespace

uint32_t cpu_features() {
  static const uint32_t features = detect();
  return features;
}

}  // namespace ke::cpu
