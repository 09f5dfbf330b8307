// Comparing the logits of two storage types (kosmos-edge bench quality).
#include "bindings/bind_common.h"
#include "engine/divergence.h"

namespace ke {
namespace {

std::span<const float> floats_of(const BufferView& view, const char* what) {
  const std::span<const uint8_t> bytes = view.bytes();
  KE_CHECK(bytes.size() % sizeof(float) == 0 && reinterpret_cast<uintptr_t>(bytes.data()) % alignof(float) == 0,
           InvalidRequest, what, ": expected float32 values, got ", bytes.size(), " bytes");
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

std::vector<std::tuple<double, int32_t, int32_t>> compare_logits(const BufferArg& reference, const BufferArg& other,
                                                                 int64_t vocab) {
  const BufferView a(reference), b(other);
  const std::span<const float> p = floats_of(a, "reference"), q = floats_of(b, "other");
  std::vector<Divergence> found;
  {
    nb::gil_scoped_release release;
    found = divergences(p, q, vocab);
  }
  std::vector<std::tuple<double, int32_t, int32_t>> out;
  for (const Divergence& d : found) out.emplace_back(d.kl, d.reference_top, d.other_top);
  return out;
}

}  // namespace

void bind_quality(nb::module_& m) {
  m.def("compare_logits", &compare_logits, nb::arg("reference"), nb::arg("other"), nb::arg("vocab"),
        "(KL divergence in nats, likeliest token of the reference, likeliest of the other) for each row of two\n"
        "(rows, vocab) buffers of float32 logits.");
}

}  // namespace ke
