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

ChoiceList probe_one_row(const std::string& isa, int threads, size_t bytes) {
  std::vector<KernelChoice> choices;
  {
    nb::gil_scoped_release release;
    choices = cpu::run_one_row_probe(isa, threads, bytes);
  }
  return choice_list(choices);
}

}  // namespace

ChoiceList choice_list(const std::vector<KernelChoice>& choices) {
  ChoiceList out;
  for (const KernelChoice& c : choices) {
    nb::dict rates, d;
    for (const auto& [name, rate] : c.rates) rates[name.c_str()] = rate;
    d["types"] = c.types;
    d["in"] = c.in;
    d["out"] = c.out;
    d["chosen"] = c.chosen.empty() ? nb::none() : nb::cast(c.chosen);
    d["bytes_per_s"] = rates;
    out.append(d);
  }
  return out;
}

void bind_bench(nb::module_& m) {
  m.def("probe", &probe, nb::arg("kind"), nb::arg("isa") = "", nb::arg("threads") = 1, nb::arg("rounds") = 5,
        nb::arg("bytes") = size_t{512} << 20,
        "What the machine can do at most, one figure per round: bytes per second read from memory ('read'), or 8-bit "
        "or float32 multiply-accumulates per second ('int8', 'float32') of an instruction set.");
  m.def("probe_one_row", &probe_one_row, nb::arg("isa") = "", nb::arg("threads") = 0,
        nb::arg("bytes") = size_t{64} << 20,
        "Which instruction set multiplies one row, as in decoding, on matrices made up for it with `bytes` of weights "
        "of each type: a list like Engine.kernel_choices. Empty where there is no choice.");
}

}  // namespace ke
