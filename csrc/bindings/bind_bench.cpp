// The probes of the benchmark.
#include "bindings/bind_common.h"
#include "cpu/probe.h"

namespace ke {
namespace {

std::vector<double> probe(const std::string& kind, const std::string& isa, int threads, int rounds, size_t bytes) {
  const bool read = kind == "read", int8 = kind == "int8";
  KE_CHECK(read || int8 || kind == "float32", InvalidRequest, "kind must be 'read', 'int8' or 'float32', got '", kind,
           "'");
  nb::gil_scoped_release release;
  return cpu::run_probe(read   ? cpu::Probe::Read
                        : int8 ? cpu::Probe::Int8
                               : cpu::Probe::Float32,
                        isa, threads, rounds, bytes);
}

}  // namespace

void bind_bench(nb::module_& m) {
  m.def("probe", &probe, nb::arg("kind"), nb::arg("isa") = "", nb::arg("threads") = 1, nb::arg("rounds") = 5,
        nb::arg("bytes") = size_t{512} << 20,
        "What the machine can do at most, one figure per round: bytes per second read from memory ('read'), or 8-bit "
        "or float32 multiply-accumulates per second ('int8', 'float32') of an instruction set.");
}

}  // namespace ke
