// What this processor, and the operating system on it, can run.
#pragma once
#include <cstdint>

namespace ke::cpu {

enum Feature : uint32_t {
  kAvx2 = 1 << 0,        // AVX2, FMA, F16C; the system saves 256-bit registers
  kAvxVnni = 1 << 1,     // vpdpbusd on 256 bits
  kAvx512 = 1 << 2,      // AVX-512 F, BW, VL, DQ; the system saves 512-bit registers
  kAvx512Vnni = 1 << 3,  // vpdpbusd on 512 bits
  kAmxInt8 = 1 << 6,     // tile registers with 8-bit products; the system lets this process use them
  kNeonDot = 1 << 4,     // NEON with sdot, udot
  kNeonI8mm = 1 << 5,    // NEON with usdot, smmla
};

// The features of this machine, found once.
uint32_t cpu_features();

}  // namespace ke::cpu
