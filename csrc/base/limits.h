// The limits of a request, each defined once for C++, C and Python (_core.limits), in the order of a request.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ke::limits {

constexpr int32_t kMaxThreads = 1024;                                                   // that compute
constexpr size_t kDefaultPrefixMegabytes = 128, kMaxPrefixMegabytes = size_t{1} << 20;  // of keys and values kept

constexpr int64_t kMaxImageSide = 65535, kMaxImagePixels = int64_t{1} << 28;

constexpr size_t kMaxSegments = 4096;  // of a free prompt
constexpr size_t kMaxBoxes = 1024;     // of one place in it
constexpr size_t kMaxExamples = 64;    // before a request
constexpr size_t kMaxTurns = 1024;     // of a conversation before a question
constexpr size_t kMaxTexts = 10000;    // ranked in one call

constexpr size_t kMaxStops = 32;
constexpr size_t kMaxChoices = 1000;
constexpr int32_t kMaxBeams = 8;
constexpr int32_t kMaxTopLogprobs = 20;  // tokens beside each of the answer's
constexpr double kMaxTemperature = 100;
constexpr int32_t kMaxCandidates = 100;  // of contrastive search
constexpr double kMaxImageWeight = 100;
constexpr double kMaxLengthPenalty = 10;  // and no less than its negative
constexpr double kMinRepetitionPenalty = 0.125, kMaxRepetitionPenalty = 100;

constexpr int32_t kMaxBatch = 256;    // answers decoded at a time
constexpr int32_t kDefaultBatch = 8;  // full size: 1.8 times the images/s of 1; 16 gives 1.9 for twice the memory

}  // namespace ke::limits
