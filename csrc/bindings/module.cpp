// kosmos_edge._core: the native module. One bind_* function per topic.
#include "bindings/bind_common.h"
#include <sources_id.h>  // written by cmake/sources_id.cmake

NB_MODULE(_core, m) {
  // A process that ends in the middle of a call (a forked child, an interpreter that does not wait) has objects left;
  // to print about that is not the library's business.
  nb::set_leak_warnings(false);
  m.doc() = "Native core of kosmos_edge; use the kosmos_edge package instead.";
  m.def("sources_id", [] { return KE_SOURCES_ID; }, "What this module was built from; see kosmos_edge/checkout.py.");
  m.def_submodule("testing", "What only the project's own tests need; no part of the API.");
  ke::bind_errors(m);
  ke::bind_limits(m);
  ke::bind_codec(m);
  ke::bind_merge(m);
  ke::bind_gguf(m);
  ke::bind_text(m);
  ke::bind_image(m);
  ke::bind_ops(m);
  ke::bind_calibration(m);
  ke::bind_engine(m);
  ke::bind_tasks(m);
  ke::bind_answer(m);
  ke::bind_batch(m);
  ke::bind_quality(m);
  ke::bind_sharing(m);
  ke::bind_bench(m);
  ke::bind_testing(m);
  ke::bind_layers(m);
  ke::bind_testing_text(m);
  ke::bind_testing_cross(m);
}
