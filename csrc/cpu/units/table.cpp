// The table of the kernels that the other units define.
#include "cpu/linear_quantized.inl"
#include "cpu/linear_widened.inl"

namespace ke::cpu::KE_ISA {

namespace {

template <class F>
struct Pointed;
template <class F>
struct Pointed<F*> {
  using Type = F;
};

}  // namespace

// Declares a kernel as the table has it: a definition of another type does not link.
#define KE_KERNEL(name, member) Pointed<decltype(Kernels::member)>::Type name
KE_KERNEL(pack_floats, pack_floats);
KE_KERNEL(pack_quantized, pack_quantized);
KE_KERNEL(linear, linear);
KE_KERNEL(norm_row, norm);
KE_KERNEL(l2_normalize, l2_normalize);
KE_KERNEL(add_rows, add);
KE_KERNEL(add_scaled, add_scaled);
KE_KERNEL(scale_row, scale);
KE_KERNEL(gate_row, gate);
KE_KERNEL(rope_head, rope);
KE_KERNEL(attention, attention);
KE_KERNEL(begin_rows, begin_rows);
KE_KERNEL(attend_tile, attend_tile);
KE_KERNEL(finish_rows, finish_rows);
KE_KERNEL(store_kv, store_kv);
KE_KERNEL(pack_keys, pack_keys);
KE_KERNEL(pack_values, pack_values);
KE_KERNEL(mean_row, mean_row);
KE_KERNEL(pack_key_codes, pack_key_codes);
KE_KERNEL(pack_value_codes, pack_value_codes);
#undef KE_KERNEL

constexpr int64_t kScratch = kLinearScratch > kWidenedScratch ? kLinearScratch : kWidenedScratch;

extern const Kernels kernels;
const Kernels kernels = {
    KE_NAME,     kTileCols,      kPanels,     kPrefersI8,     kScratch,
    pack_floats, pack_quantized, linear,      norm_row,       l2_normalize,
    add_rows,    add_scaled,     scale_row,   gate_row,       rope_head,
    attention,   begin_rows,     attend_tile, finish_rows,    store_kv,
    pack_keys,   pack_values,    mean_row,    pack_key_codes, kPrefersI8 ? pack_value_codes : nullptr};

}  // namespace ke::cpu::KE_ISA
