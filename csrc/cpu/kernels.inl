// One instruction set's kernels: includes the texts below into its namespace and exports the table.
// The including file has defined KE_ISA and included its vector vocabulary.
#include "cpu/kernels.h"
#include "cpu/panels.h"

#define KE_LAMBDA __attribute__((always_inline))

namespace ke::cpu::KE_ISA {
namespace {

// Calls f<0>() ... f<N - 1>(). Loops over accumulators are written so, not as `for`: an array that is only ever indexed
// by constants lives in registers, and GCC does not unroll long loop bodies in time to see that.
template <int N, class F>
KE_INLINE void each(F f) {
  if constexpr (N > 0) {
    each<N - 1>(f);
    f.template operator()<N - 1>();
  }
}

// Calls f<c, p>() for c < C, p < P, p fastest.
template <int C, int P, class F>
KE_INLINE void each(F f) {
  each<C>([&]<int c>() KE_LAMBDA { each<P>([&]<int p>() KE_LAMBDA { f.template operator()<c, p>(); }); });
}

// Calls f<C>() with C = cols, 1 <= cols <= Most.
template <int Most, int C = 1, class F>
inline void for_columns(int cols, const F& f) {
  if constexpr (C < Most) {
    if (cols != C) return for_columns<Most, C + 1>(cols, f);
  }
  f.template operator()<C>();
}

#include "cpu/elementwise.inl"
#include "cpu/linear_float.inl"
#include "cpu/linear_quantized.inl"
#include "cpu/attention.inl"

void linear(const LinearTask* task) {
  switch (task->type) {
    case PanelType::F32:
      return linear_float<F32Weights>(*task);
    case PanelType::F16:
      return linear_float<F16Weights>(*task);
    case PanelType::BF16:
      return linear_float<BF16Weights>(*task);
    default:
      return linear_quantized(*task);
  }
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {KE_NAME,        kTileCols, kPanels,    kCoarse,      kLinearScratch, pack_floats,
                         pack_quantized, linear,    layer_norm, l2_normalize, add_rows,       attention,
                         store_kv,       lay_keys,  lay_values, lay_key_codes};

}  // namespace ke::cpu::KE_ISA
