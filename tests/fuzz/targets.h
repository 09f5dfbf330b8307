// The fuzz targets: what makes a case's bytes, and what runs any bytes. The second is libFuzzer's entry point, too.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "random.h"

namespace fuzz {

// How one input went. Everything else (a crash, a sanitizer's report, another exception, a hang) ends the program.
struct Outcome {
  bool accepted = false;   // as a model, a vocabulary, a picture
  bool captioned = false;  // and ran to an answer or to a typed error of the run
  std::string error;       // of the refusal: "code: message"
};

struct Target {
  const char* name;
  Bytes (*make)(Random& random);
  Outcome (*run)(std::span<const uint8_t> input);
};

extern const Target header_target, gguf_target, tokenizer_target, image_target;

// For violated promises: prints what and ends the program as a crash does.
[[noreturn]] void broken(const std::string& promise);

}  // namespace fuzz

// In a libFuzzer build each target's source is a program of its own.
#ifdef KE_LIBFUZZER
#define KE_FUZZ_ENTRY(target)                                               \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { \
    target.run({data, size});                                               \
    return 0;                                                               \
  }                                                                         \
  void fuzz::broken(const std::string& promise) {                           \
    std::fprintf(stderr, "%s\n", promise.c_str());                          \
    std::abort();                                                           \
  }
#else
#define KE_FUZZ_ENTRY(target)
#endif
