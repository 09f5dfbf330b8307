// kosmos_edge._core.testing: decoding rules on their own, for tests against plain Python definitions.
#include <nanobind/stl/unique_ptr.h>

#include <atomic>

#include "base/cancel.h"
#include "bindings/bind_common.h"
#include "engine/sampler.h"

namespace ke {
namespace {

// A CancelToken that allows `allowed` polls and cancels at the next.
struct CountedCancel : CancelToken {
  explicit CountedCancel(int64_t allowed) : CancelToken([this, allowed] { return ++polls > allowed; }) {}
  std::atomic<int64_t> polls{0};
};

std::vector<float> rules(std::vector<float> scores, const std::vector<int32_t>& sequence, int32_t n,
                         const Constraint* constraint, std::vector<int32_t> never) {
  Rules(std::move(never)).apply(scores, sequence, n, constraint);
  return scores;
}

std::unique_ptr<Constraint> grammar(int32_t first_tag, int32_t first_location, int64_t bins, int32_t eos) {
  Grounding f;
  f.phrase_begin = first_tag, f.phrase_end = first_tag + 1, f.object_begin = first_tag + 2;
  f.object_end = first_tag + 3, f.delimiter = first_tag + 4;
  f.first_location = first_location, f.bins = bins;
  return location_grammar(f, eos);
}

std::vector<int32_t> sample(std::vector<float> scores, float temperature, int32_t top_k, float top_p, uint64_t seed,
                            int count) {
  Sampler sampler({temperature, top_k, top_p, seed, 0});
  std::vector<int32_t> ids;
  for (int i = 0; i < count; i++) {
    std::vector<float> copy = scores;
    ids.push_back(sampler.sample(copy));
  }
  return ids;
}

}  // namespace

void bind_testing(nb::module_& m) {
  nb::module_ t = nb::cast<nb::module_>(m.attr("testing"));
  nb::class_<CountedCancel, CancelToken>(t, "CountedCancel")
      .def(nb::init<int64_t>(), nb::arg("allowed"))
      .def_prop_ro("polls", [](const CountedCancel& c) { return c.polls.load(); });
  nb::class_<Constraint>(t, "Constraint")
      .def("accept", &Constraint::accept)
      .def_prop_ro("complete", &Constraint::complete)
      .def("allowed", [](const Constraint& c, int32_t vocab) {
        std::vector<IdRange> ranges;
        c.allowed(vocab, ranges);
        std::vector<int32_t> ids;
        for (const IdRange& r : ranges)
          for (int32_t i = r.begin; i < r.end; i++) ids.push_back(i);
        return ids;
      });
  // Tags in the order <phrase> </phrase> <object> </object> delimiter from first_tag on.
  t.def("location_grammar", &grammar, nb::arg("first_tag"), nb::arg("first_location"), nb::arg("bins"), nb::arg("eos"));
  t.def("one_of", &one_of, nb::arg("choices"), nb::arg("eos"));
  t.def("apply_rules", &rules, nb::arg("scores"), nb::arg("sequence"), nb::arg("no_repeat_ngram_size"),
        nb::arg("constraint").none() = nb::none(), nb::arg("never") = std::vector<int32_t>());
  t.def("penalize", [](std::vector<float> scores, const std::vector<int32_t>& sequence, float penalty) {
    std::vector<bool> seen;
    penalize(scores, sequence, penalty, seen);
    return scores;
  });
  t.def("sample", &sample, nb::arg("scores"), nb::arg("temperature"), nb::arg("top_k"), nb::arg("top_p"),
        nb::arg("seed"), nb::arg("count"));
  t.def("log_probability", [](const std::vector<float>& logits, int32_t id) { return log_probability(logits, id); });
}

}  // namespace ke
