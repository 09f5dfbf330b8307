// Tile registers: 8 of them, each up to 16 rows of 64 bytes. One instruction multiplies a tile of 16 activation rows x
// 64 k with 16 lines of a panel (64 k x 16 output rows, as panels.h lays them out) into 16 x 16 integers. Register
// numbers are part of the instruction, so they are template arguments here.
#pragma once
#include "cpu/unit.inl"

namespace ke::cpu::KE_ISA {
namespace {

constexpr int kTileRows = kTilePadding + 1;
constexpr int kTileDepth = 64;  // k

struct TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

static_assert(sizeof(TileShapes) == 64, "as ldtilecfg reads it");

// The calling thread's tile registers, from construction to destruction.
class TileRegisters {
 public:
  TileRegisters() {
    TileShapes shapes;
    for (int i = 0; i < 8; ++i) {
      shapes.row_bytes[i] = 64;
      shapes.rows[i] = kTileRows;
    }
    asm volatile("ldtilecfg %0" ::"m"(shapes));
  }
  ~TileRegisters() { asm volatile("tilerelease"); }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

template <int T>
KE_INLINE void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(T));
}
template <int T>
KE_INLINE void tile_load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
}
template <int T>
KE_INLINE void tile_store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
}
// Sum += X W: signed activations, and weights that are signed or not.
template <bool Signed, int Sum, int X, int W>
KE_INLINE void tile_dot() {
  if constexpr (Signed)
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(X), "i"(W));
  else
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(X), "i"(W));
}

}  // namespace
}  // namespace ke::cpu::KE_ISA
