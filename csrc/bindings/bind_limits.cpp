// kosmos_edge._core.limits: how much a caller may ask for (base/limits.h).
#include "base/limits.h"
#include "bindings/bind_common.h"

namespace ke {

void bind_limits(nb::module_& m) {
  using namespace limits;
  nb::module_ l = m.def_submodule("limits", "How much a caller may ask for.");
  l.attr("MAX_THREADS") = kMaxThreads;
  l.attr("DEFAULT_PREFIX_CACHE_MB") = kDefaultPrefixMegabytes;
  l.attr("MAX_PREFIX_CACHE_MB") = kMaxPrefixMegabytes;
  l.attr("MAX_IMAGE_SIDE") = kMaxImageSide;
  l.attr("MAX_IMAGE_PIXELS") = kMaxImagePixels;
  l.attr("MAX_SEGMENTS") = kMaxSegments;
  l.attr("MAX_BOXES") = kMaxBoxes;
  l.attr("MAX_EXAMPLES") = kMaxExamples;
  l.attr("MAX_TURNS") = kMaxTurns;
  l.attr("MAX_TEXTS") = kMaxTexts;
  l.attr("MAX_STOPS") = kMaxStops;
  l.attr("MAX_CHOICES") = kMaxChoices;
  l.attr("MAX_BEAMS") = kMaxBeams;
  l.attr("MAX_TOP_LOGPROBS") = kMaxTopLogprobs;
  l.attr("MAX_CANDIDATES") = kMaxCandidates;
  l.attr("MAX_IMAGE_WEIGHT") = kMaxImageWeight;
  l.attr("MAX_TEMPERATURE") = kMaxTemperature;
  l.attr("MAX_LENGTH_PENALTY") = kMaxLengthPenalty;
  l.attr("MIN_REPETITION_PENALTY") = kMinRepetitionPenalty;
  l.attr("MAX_REPETITION_PENALTY") = kMaxRepetitionPenalty;
  l.attr("MAX_BATCH") = kMaxBatch;
  l.attr("DEFAULT_BATCH") = kDefaultBatch;
}

}  // namespace ke
