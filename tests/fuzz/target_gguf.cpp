// Model files. gguf: any bytes are refused with a typed error, alike in both modes of loading, or give a model that
// encodes pictures and answers. header: the reader and the schema alone, on files without weights, many times as fast.
#include <cmath>
#include <map>

#include "base/error.h"
#include "engine/engine.h"
#include "gguf_draft.h"
#include "memory_file.h"
#include "models/architecture.h"
#include "tasks/answer.h"
#include "tasks/plan.h"
#include "targets.h"
#include "text/grounding.h"

namespace fuzz {
namespace {

using ke::ErrorCode;

std::string say(const ke::Error& e) { return ke::concat(static_cast<int>(e.code()), ": ", e.what()); }

// What an open or a load may end in. Internal errors and anything that is no ke::Error are bugs.
std::string refusal(const ke::Error& e) {
  if (e.code() != ErrorCode::ModelCorrupt && e.code() != ErrorCode::OutOfMemory)
    broken("a refusal with code " + say(e));
  if (std::string_view(e.what()).size() > 4096) broken("an error of more than 4 KiB: " + say(e));
  return say(e);
}

std::shared_ptr<ke::GgufFile> open(const std::string& path, ke::LoadMode mode, std::string* error) {
  try {
    return ke::GgufFile::open(path, mode);
  } catch (const ke::Error& e) {
    *error = refusal(e);
    return nullptr;
  }
}

std::shared_ptr<ke::Engine> load(const std::string& path, ke::LoadMode mode, std::string* error) {
  try {
    ke::LoadOptions options;
    options.mode = mode;
    options.backend.threads = 1;
    return ke::Engine::load(path, options);
  } catch (const ke::Error& e) {
    *error = refusal(e);
    return nullptr;
  }
}

void touch(const ke::GgufFile& file) {
  for (const ke::Tensor& t : file.tensors()) {
    const uint64_t at = file.tensor_offset(t);
    if (t.bytes > file.file_bytes() || at > file.file_bytes() - t.bytes)
      broken("a tensor outside of the file: " + t.name);
    volatile uint8_t sum = 0;
    for (uint64_t i = 0; i < t.bytes; i += 64) sum = static_cast<uint8_t>(sum + t.data[i]);
    if (t.bytes) sum = static_cast<uint8_t>(sum + t.data[t.bytes - 1]);
  }
  for (const auto& [key, value] : file.metadata())
    if (value.type == ke::MetaType::Array && value.element_type == ke::MetaType::String) (void)value.strings();
}

// One short caption and one answer about a place: any typed error that a request may have, else tokens in range.
void caption(const ke::Engine& engine) {
  static constexpr uint8_t rgb[5 * 3 * 3] = {255, 0, 0, 9, 8, 7, 0, 255, 0, 1, 2, 3};
  try {
    const auto picture = engine.encode_image({rgb, 5, 3}, nullptr, true);
    const ke::ModelInfo& info = engine.model().info();
    ke::GenerateParams params;
    params.max_tokens = 2;
    params.sampler.no_repeat_ngram_size = 3;
    params.logprobs = true;
    const bool grounds = info.grounding.has_value();
    std::vector<ke::VerbRequest> requests(1);
    requests[0].ground = grounds;
    if (grounds) requests.emplace_back().verb = ke::Verb::Describe;
    for (const ke::VerbRequest& request : requests) {
      ke::Plan plan = ke::plan_verb(info, request);
      const ke::Prompt prompt = engine.prompt(ke::filled(std::move(plan.segments), {picture}, {{{0, 3}}}));
      const ke::Generation answer = engine.generate(prompt, params, nullptr, nullptr);
      for (int32_t id : answer.ids)
        if (id < 0 || id >= info.vocab) broken("an answer with token " + std::to_string(id));
      for (float p : answer.logprobs)
        if (!std::isfinite(p)) broken("a log-probability that is not finite");
      (void)ke::AnswerReader(*engine.tokenizer(), *info.answers).read({}, answer.ids, answer.logprobs);
    }
  } catch (const ke::Error& e) {
    // ModelCorrupt: the weights gave scores that are not finite.
    if (e.code() != ErrorCode::ModelCorrupt && e.code() != ErrorCode::ContextTooLong)
      broken("a caption failed: " + say(e));
  }
}

Outcome run(std::span<const uint8_t> input) {
  static MemoryFile file;
  Outcome outcome;
  file.write(input);
  std::string mapped_error, copied_error;
  const auto mapped = open(file.path(), ke::LoadMode::Mmap, &mapped_error);
  const auto copied = open(file.path(), ke::LoadMode::Copy, &copied_error);
  if (mapped_error != copied_error) broken("mmap says \"" + mapped_error + "\", copy says \"" + copied_error + '"');
  if (mapped) {
    touch(*mapped);
    const auto one = load(file.path(), ke::LoadMode::Mmap, &mapped_error);
    const auto two = load(file.path(), ke::LoadMode::Copy, &copied_error);
    if (mapped_error != copied_error) broken("mmap says \"" + mapped_error + "\", copy says \"" + copied_error + '"');
    outcome.accepted = one != nullptr;
    if (one) caption(*one);
    outcome.captioned = outcome.accepted;
  }
  outcome.error = mapped_error;
  return outcome;
}

Outcome run_header(std::span<const uint8_t> input) {
  static MemoryFile file;
  Outcome outcome;
  file.write(input);
  std::string copied_error;
  const auto mapped = open(file.path(), ke::LoadMode::Mmap, &outcome.error);
  if (input.size() % 4 == 0) {
    (void)open(file.path(), ke::LoadMode::Copy, &copied_error);
    if (outcome.error != copied_error) broken("mmap says \"" + outcome.error + "\", copy says \"" + copied_error + '"');
  }
  if (!mapped) return outcome;
  touch(*mapped);
  try {
    const ke::ModelInfo info = ke::architecture_of(*mapped).describe(*mapped);
    if (info.context < 1 || info.vocab < 1 || info.width < 8 || info.image_tokens < 1 || !info.grounding)
      broken("a configuration that contradicts itself");
    outcome.accepted = true;
  } catch (const ke::Error& e) {
    outcome.error = refusal(e);
  }
  return outcome;
}

// Making a model costs more than reading it: mutants begin from copies of a few dozen.
const Draft& seed_model(uint64_t sizes, uint32_t type) {
  static std::map<std::pair<uint64_t, uint32_t>, Draft> made;
  Draft& draft = made[{sizes, type}];
  if (draft.entries.empty()) {
    Random random(0, sizes);
    draft = valid_model(random, sizes ? random_sizes(random) : Sizes{}, type);
  }
  return draft;
}

Bytes finish(Random& random, Draft& draft) {
  mutate(random, draft);
  Bytes bytes = draft.bytes();
  if (random.chance(4)) random.damage(bytes, 1 + static_cast<int>(random.below(6)));
  if (random.chance(12)) bytes.resize(random.below(bytes.size() + 1));
  return bytes;
}

Bytes make(Random& random) {
  const uint32_t type = random.pick<uint32_t>({0, 0, 0, 1, 30, 8, 2, 3, 6, 7, 12, 13, 14});
  Draft draft = seed_model(random.chance(4) ? 1 + random.below(24) : 0, type);
  return finish(random, draft);
}

Bytes make_header(Random& random) {
  Draft draft = seed_model(random.below(25), 0);
  draft.tensors.resize(1 + random.below(5));
  for (TensorDraft& t : draft.tensors) {  // token_embd and the first norms, made small
    t.dims = {32, 1 + random.below(2)};
    t.rank = 2;
    t.type = random.pick<uint32_t>({0, 1, 8, 2, 30});
    t.data.resize((t.type == 0 ? 128 : t.type == 8 ? 34 : t.type == 2 ? 18 : 64) * t.dims[1]);
  }
  draft.place();
  return finish(random, draft);
}

}  // namespace

const Target gguf_target = {"gguf", make, run};
const Target header_target = {"header", make_header, run_header};

}  // namespace fuzz

KE_FUZZ_ENTRY(fuzz::gguf_target)
