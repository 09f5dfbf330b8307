// Heap allocations per decoded token: allocations MODEL [THREADS]
// Prints them for each way of decoding and fails unless, after the first few tokens, there are none.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"

static std::atomic<long> allocated{0};

void* operator new(std::size_t bytes) {
  allocated++;
  if (void* p = std::malloc(bytes ? bytes : 1)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace {

constexpr size_t kWarmUp = 4;  // tokens that may grow buffers

// How many allocations fell between the warm-up and the last token.
long count(const ke::Engine& engine, const ke::Prompt& prompt, const ke::GenerateParams& params) {
  std::vector<long> at;  // after each token
  at.reserve(static_cast<size_t>(params.max_tokens));
  const ke::OnToken on_token = [&](int32_t, float) {
    at.push_back(allocated);
    return true;
  };
  // A draft may come late, and the first answer teaches the drafts of the next ones: workspaces grow to what they need.
  for (int i = 0; i < 3; i++) engine.generate(prompt, params, nullptr, nullptr);
  engine.generate(prompt, params, on_token, nullptr);
  if (at.size() < 2 * kWarmUp) throw ke::Error(ke::ErrorCode::Internal, "the answer is too short to say anything");
  return at.back() - at[kWarmUp];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "allocations MODEL [THREADS]\n");
    return 2;
  }
  try {
    ke::LoadOptions options;
    options.backend.threads = argc > 2 ? std::atoi(argv[2]) : 2;
    const auto engine = ke::Engine::load(argv[1], options);
    std::vector<uint8_t> rgb(64 * 64 * 3, 90);  // grey with a red square, so that there is something to say
    for (size_t y = 16; y < 48; y++)
      for (size_t x = 16; x < 48; x++) {
        rgb[(y * 64 + x) * 3] = 210;
        rgb[(y * 64 + x) * 3 + 1] = rgb[(y * 64 + x) * 3 + 2] = 35;
      }
    ke::Segment picture, words;
    picture.kind = ke::Segment::Kind::Image;
    picture.image = engine->encode_image({rgb.data(), 64, 64}, nullptr);
    words.kind = ke::Segment::Kind::Tags;
    words.text = "<grounding> An image of";
    const ke::Prompt prompt = engine->prompt({picture, words});

    const auto params = [](auto change) {
      ke::GenerateParams p;
      p.max_tokens = 24;
      change(p);
      return p;
    };
    const struct {
      const char* name;
      ke::GenerateParams params;
    } ways[] = {
        {"greedy", params([](auto&) {})},
        {"log-probabilities", params([](auto& p) { p.logprobs = true; })},
        {"grammar", params([](auto& p) { p.grammar = true; })},
        {"temperature", params([](auto& p) { p.sampler.temperature = 1; })},
        {"top-k", params([](auto& p) { p.sampler.temperature = 1, p.sampler.top_k = 20; })},
    };
    long total = 0;
    for (const auto& way : ways) {
      const long n = count(*engine, prompt, way.params);
      std::printf("%-18s %ld\n", way.name, n);
      total += n;
    }
    return total == 0 ? 0 : 1;
  } catch (const ke::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 2;
  }
}
