#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "backend/devices.h"
#include "base/error.h"
#include "engine/source.h"
#include "format/utf8.h"
#include "backend/logits.h"
#include "models/architecture.h"
#include "text/load_tokenizer.h"

namespace ke {

constexpr size_t kSharedPrefixBytes = 32u << 20;  // 160 positions of KOSMOS-2, 64 of a LLaMA of 7 billion weights

DType kv_type_of(std::string_view name) {
  if (name == "f16") return DType::F16;
  if (name == "q8_0") return DType::Q8_0;
  fail(ErrorCode::InvalidRequest, "kv_type: expected f16 or q8_0, got ", quoted(name));
}

const char* Engine::kv_type() const {
  const DType type = model_->kv_type();
  return type == DType::F32 ? "f32" : type == DType::F16 ? "f16" : "q8_0";
}

std::shared_ptr<Engine> Engine::load(const std::string& path, const LoadOptions& options) {
  std::shared_ptr<Engine> engine;
  const std::string fallback = with_best_device(options.backend, [&](const BackendOptions& backend) {
    LoadOptions named = options;
    named.backend = backend;
    engine = load_named(path, named);
  });
  engine->fallback_ = fallback;
  return engine;
}

static DraftMode draft_mode(const LoadOptions& options) {
  if (!options.drafts.empty()) return draft_mode_of(options.drafts, "drafts");
  const char* variable = std::getenv("KOSMOS_EDGE_DRAFTS");
  return variable && *variable ? draft_mode_of(variable, "KOSMOS_EDGE_DRAFTS") : DraftMode::Auto;
}

// A load that made the file of shared weights has them in memory of its own: the next one maps them.
std::shared_ptr<Engine> Engine::load_named(const std::string& path, const LoadOptions& options) {
  std::optional<SharingStep> step = SharingStep::UseOrMake;
  std::shared_ptr<Engine> engine;
  Sharing before;
  while (step) {
    engine.reset();
    std::optional<SharingStep> again;
    engine = load_once(path, options, *step, &again);
    Sharing& sharing = engine->sharing_;
    sharing.made |= before.made;
    if (!before.note.empty()) sharing.note = before.note + (sharing.note.empty() ? "" : "; ") + sharing.note;
    before = sharing;
    step = again;
  }
  return engine;
}

std::shared_ptr<Engine> Engine::load_once(const std::string& path, const LoadOptions& options, SharingStep step,
                                          std::optional<SharingStep>* again) {
  const DraftMode drafts = draft_mode(options);
  auto engine = std::make_shared<Engine>();
  engine->file_ = open_model(path, options.mmproj, options.mode);
  uint64_t total = 0;
  for (const Tensor& t : engine->file_->tensors()) total += t.bytes;
  if (options.on_progress) {
    options.on_progress(0, total);
    engine->file_->watch_release([&options, total, done = uint64_t{0}](const Tensor& t) mutable {
      done = std::min<uint64_t>(total, done + t.bytes);
      options.on_progress(done, total);
    });
  }
  engine->backend_ = make_backend(options.backend);
  const std::shared_ptr<Backend> device = engine->backend_;
  if (!options.shared_weights.empty()) {
    SharingRequest request{options.shared_weights, engine->file_.get(), step, {}};
    if (options.on_progress) request.wait = [&options, total] { options.on_progress(0, total); };
    device->begin_sharing(request);
  }
  if (options.recorder) engine->backend_ = record_activations(engine->backend_, options.recorder);
  engine->model_ = options.load_model ? options.load_model(engine->file_, engine->backend_, options.kv_type)
                                      : load_model(engine->file_, engine->backend_, options.kv_type);
  if (!options.shared_weights.empty()) engine->sharing_ = device->end_sharing(again);
  if (engine->model_->info().embedding == 0) {  // else it compares: its caches last for a call
    const std::unique_ptr<KvCache> cache = engine->model_->new_cache(1);
    engine->kv_position_bytes_ = cache->bytes() / static_cast<size_t>(cache->capacity);
  }
  engine->tokenizer_ = make_tokenizer(*engine->file_);
  engine->prefixes_ = std::make_shared<PrefixBudget>(options.prefix_bytes);
  if (options.prefix_bytes > 0) {
    engine->shared_prefix_ = std::make_shared<PrefixCache>(std::make_shared<PrefixBudget>(kSharedPrefixBytes),
                                                           PrefixCache::Scope::BeforeImages);
    engine->text_prefix_ = std::make_unique<PrefixCache>(engine->prefixes_, PrefixCache::Scope::All);
  }
  engine->drafts_ = std::make_unique<Drafts>(*engine->tokenizer_, drafts);
  if (drafts == DraftMode::Auto && engine->model_->samples_on_device()) engine->drafts_->set_mode(DraftMode::Off);
  engine->file_->watch_release({});
  return engine;
}

std::shared_ptr<const ImageEmbedding> Engine::encode_image(const ImageView& image, const CancelToken* cancel,
                                                           bool keep) const {
  const auto start = std::chrono::steady_clock::now();
  return encode(*prepare_image(image, cancel), cancel, keep, start);
}

std::unique_ptr<const PreparedImage> Engine::prepare_image(const ImageView& image, const CancelToken* cancel) const {
  return model_->prepare(image, cancel);
}

std::shared_ptr<const ImageEmbedding> Engine::encode_prepared(const PreparedImage& image, const CancelToken* cancel,
                                                              bool keep) const {
  return encode(image, cancel, keep, std::chrono::steady_clock::now());
}

std::shared_ptr<const ImageEmbedding> Engine::encode(const PreparedImage& image, const CancelToken* cancel, bool keep,
                                                     std::chrono::steady_clock::time_point start) const {
  const std::shared_ptr<ImageEmbedding> e = make_embedding(model_->encode(image, cancel), keep);
  e->width = image.width;
  e->height = image.height;
  e->encode_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return e;
}

std::shared_ptr<const ImageEmbedding> Engine::restore_image(std::vector<float> values, int64_t width, int64_t height,
                                                            bool keep) const {
  const std::shared_ptr<ImageEmbedding> e = make_embedding(model_->restore(std::move(values)), keep);
  e->width = width;
  e->height = height;
  return e;
}

std::shared_ptr<const ImageEmbedding> Engine::given_rows(std::vector<float> values, int64_t count, bool keep) const {
  return make_embedding(model_->given_rows(std::move(values), count), keep);
}

std::shared_ptr<ImageEmbedding> Engine::make_embedding(std::shared_ptr<const ImageFeatures> features, bool keep) const {
  auto e = std::make_shared<ImageEmbedding>();
  e->features = std::move(features);
  e->shared_prefix = shared_prefix_;
  if (keep && prefixes_->bytes() > 0) {
    e->prefix = std::make_shared<PrefixCache>(prefixes_, PrefixCache::Scope::All);
    if (e->features->unread()) e->last_reading = std::make_unique<ImageEmbedding::LastReading>();
  }
  return e;
}

// Other words make another image of it, with a serial of its own: no keys and values of one question serve another.
std::shared_ptr<const ImageEmbedding> Engine::read_image(const ImageEmbedding& image, std::string_view words) const {
  ImageEmbedding::LastReading* const last = image.last_reading.get();
  if (last) {
    const std::lock_guard lock(last->mutex);
    if (last->image && last->words == words) return last->image;
  }
  auto e = std::make_shared<ImageEmbedding>();
  e->features = model_->read(*image.features, words);
  e->encode_ms = image.encode_ms;
  e->width = image.width;
  e->height = image.height;
  e->prefix = image.prefix;
  e->shared_prefix = image.shared_prefix;
  if (last) {
    const std::lock_guard lock(last->mutex);
    last->words = words;
    last->image = e;
  }
  return e;
}

std::vector<float> Engine::embed_texts(std::span<const std::string> texts, bool truncate, const CancelToken* cancel,
                                       size_t* cut) const {
  const ModelInfo& info = model_->info();
  KE_CHECK(info.embedding > 0, InvalidRequest, kComparesNot);
  KE_CHECK(!texts.empty(), InvalidRequest, "texts: expected at least one");
  const size_t room = static_cast<size_t>(info.context) - info.begin.size() - 1;
  std::vector<std::vector<int32_t>> ids;
  for (size_t i = 0; i < texts.size(); i++) {
    std::vector<int32_t> words = tokenizer_->encode(texts[i]);
    KE_CHECK(truncate || words.size() <= room, ContextTooLong, "text ", i, " has ", words.size(),
             " tokens, the model has room for ", room, "; truncate cuts longer ones");
    if (cut && words.size() > room) ++*cut;
    words.resize(std::min(words.size(), room));
    words.insert(words.begin(), info.begin.begin(), info.begin.end());
    words.push_back(info.eos);
    ids.push_back(std::move(words));
  }
  return model_->embed_texts(ids, cancel);
}

Prompt Engine::prompt(const std::vector<Segment>& segments, bool goes_on) const {
  KE_CHECK(model_->info().embedding == 0, InvalidRequest, kOnlyCompares);
  Prompt prompt = build_prompt(*model_, *tokenizer_, segments, goes_on);
  if (prompt.images.empty()) prompt.text_prefix = text_prefix_.get();
  read_images(segments, prompt);
  if (model_->info().answer_start && !goes_on) prompt = behind_encoder(*model_, std::move(prompt));
  prompt.drafts = drafts_.get();
  return prompt;
}

void Engine::read_images(const std::vector<Segment>& segments, Prompt& prompt) const {
  const bool reads = std::any_of(prompt.images.begin(), prompt.images.end(),
                                 [](const Prompt::PlacedImage& p) { return p.image->features->unread(); });
  if (!reads) return;
  const std::vector<std::string> words = words_beside_images(segments);
  KE_ASSERT(words.size() == prompt.images.size());
  for (size_t i = 0; i < words.size(); i++) {
    std::shared_ptr<const ImageEmbedding>& image = prompt.images[i].image;
    if (image->features->unread()) image = read_image(*image, words[i]);
  }
}

Generation Engine::generate(const Prompt& prompt, const GenerateParams& params, const OnToken& on_token,
                            const CancelToken* cancel) const {
  return ke::generate(*model_, *tokenizer_, prompt, params, on_token, cancel);
}

Engine::Whole Engine::whole(const Prompt& prompt, std::span<const int32_t> answer, const CancelToken* cancel) const {
  const int64_t vocab = model_->info().vocab;
  check_context(*model_, prompt, static_cast<int64_t>(answer.size()));
  for (const int32_t id : answer)
    KE_CHECK(id >= 0 && id < vocab, InvalidRequest, "token id ", id, " is outside 0..", vocab - 1);
  Whole out;
  out.cache = model_->new_cache(static_cast<int64_t>(prompt.ids.size() + answer.size()));
  read_source(*model_, prompt, cancel);
  for (size_t i = 0; i < prompt.ids.size(); i++) out.rows.push_back(prompt.row(i, out.cache.get()));
  for (const int32_t id : answer) out.rows.push_back(prompt.row_behind(id, out.rows.size(), out.cache.get()));
  for (size_t i = 0; i < out.rows.size(); i++) out.all.push_back(static_cast<int32_t>(i));
  return out;
}

std::vector<float> Engine::logits(const Prompt& prompt, std::span<const int32_t> answer,
                                  const CancelToken* cancel) const {
  const Whole w = whole(prompt, answer, cancel);
  std::vector<float> out(w.rows.size() * static_cast<size_t>(model_->info().vocab));
  model_->forward(w.rows, w.all, out.data(), cancel);
  return out;
}

std::vector<float> Engine::states(const Prompt& prompt, std::span<const int32_t> answer,
                                  const CancelToken* cancel) const {
  const Whole w = whole(prompt, answer, cancel);
  std::vector<float> out(w.rows.size() * static_cast<size_t>(model_->info().width));
  model_->forward_states(w.rows, w.all, nullptr, out.data(), cancel);
  return out;
}

std::shared_ptr<const Prompt> Engine::blind_prompt(const std::vector<Segment>& segments) const {
  std::vector<Segment> words;
  for (const Segment& s : segments)
    if (s.kind != Segment::Kind::Image && s.kind != Segment::Kind::Rows) words.push_back(s);
  KE_CHECK(words.size() < segments.size(), InvalidRequest, "guide: the prompt has no image to be left out");
  if (words.empty()) {  // what begins every prompt is left
    words.emplace_back();
    words.back().kind = Segment::Kind::Ids;
  }
  auto out = std::make_shared<Prompt>(prompt(words));
  KE_CHECK(!out->ids.empty(), InvalidRequest, "guide: without its image nothing of the prompt is left");
  return out;
}

}  // namespace ke
