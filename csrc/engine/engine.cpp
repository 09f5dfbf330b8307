#include "engine/engine.h"

#include <chrono>

#include "base/error.h"

namespace ke {

constexpr size_t kOpeningBytes = 8u << 20;  // 40 positions of KOSMOS-2

// The vocabulary as llama.cpp's GGUF keys spell it ("t5": sentencepiece unigram).
static std::shared_ptr<const Tokenizer> load_tokenizer(const GgufFile& file) {
  const std::string kind = file.string("tokenizer.ggml.model");
  KE_CHECK(kind == "t5", ModelCorrupt, file.path(), ": tokenizer.ggml.model is '", kind,
           "', expected 't5' (sentencepiece unigram)");
  Vocabulary v;
  v.pieces = file.strings("tokenizer.ggml.tokens");
  v.scores = file.floats("tokenizer.ggml.scores");
  v.types = file.ints("tokenizer.ggml.token_type");
  const std::vector<uint8_t> charsmap = file.bytes("tokenizer.ggml.precompiled_charsmap");
  v.charsmap.assign(charsmap.begin(), charsmap.end());
  v.unk = static_cast<int32_t>(file.u32("tokenizer.ggml.unknown_token_id"));
  return std::make_shared<Tokenizer>(std::move(v));
}

std::shared_ptr<Engine> Engine::load(const std::string& path, const LoadOptions& options) {
  auto engine = std::make_shared<Engine>();
  engine->file_ = GgufFile::open(path, options.mode);
  engine->backend_ = make_backend(options.backend);
  engine->model_ = load_model(engine->file_, engine->backend_);
  engine->tokenizer_ = load_tokenizer(*engine->file_);
  engine->prefixes_ = std::make_shared<PrefixBudget>(options.prefix_bytes);
  if (options.prefix_bytes > 0)
    engine->opening_ = std::make_shared<PrefixCache>(std::make_shared<PrefixBudget>(kOpeningBytes),
                                                     PrefixCache::Keeps::BeforePictures);
  return engine;
}

std::shared_ptr<const ImageEmbedding> Engine::encode_image(const ImageView& image, bool keep,
                                                           const CancelToken* cancel) const {
  const auto start = std::chrono::steady_clock::now();
  auto e = std::make_shared<ImageEmbedding>();
  e->rows = model_->image_tokens;
  e->cols = model_->width;
  e->values = model_->encode_image(image, cancel);
  e->opening = opening_;
  if (keep && prefixes_->bytes() > 0) e->prefix = std::make_shared<PrefixCache>(prefixes_, PrefixCache::Keeps::All);
  e->encode_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return e;
}

Generation Engine::generate(const std::vector<Segment>& segments, const GenerateParams& params, const OnToken& on_token,
                            const CancelToken* cancel) const {
  return ke::generate(*model_, *tokenizer_, build_prompt(*model_, *tokenizer_, segments), params, on_token, cancel);
}

std::vector<int32_t> Engine::prompt_ids(const std::vector<Segment>& segments) const {
  return build_prompt(*model_, *tokenizer_, segments).ids;
}

Scoring Engine::score(const std::vector<Segment>& segments, const std::vector<std::vector<Segment>>& continuations,
                      const CancelToken* cancel) const {
  KE_CHECK(!continuations.empty(), InvalidRequest, "there is nothing to score: expected at least one continuation");
  const Prompt prompt = build_prompt(*model_, *tokenizer_, segments);
  const size_t n = prompt.ids.size();
  Scoring out;
  size_t longest = 0;
  for (size_t i = 0; i < continuations.size(); i++) {
    Scored s;
    for (const Segment& segment : continuations[i])
      KE_CHECK(segment.kind != Segment::Kind::Image, InvalidRequest, "continuation ", i, " holds a picture");
    s.ids = continuations[i].empty() ? std::vector<int32_t>{} : prompt_ids(continuations[i]);
    KE_CHECK(s.ids.size() > 1, InvalidRequest, "continuation ", i, " has no tokens");
    s.ids.erase(s.ids.begin());  // the <s> that starts every prompt
    longest = std::max(longest, s.ids.size());
    out.continuations.push_back(std::move(s));
  }
  check_context(*model_, n, static_cast<int64_t>(longest));

  const std::unique_ptr<KvCache> cache = model_->new_cache(static_cast<int64_t>(n + longest));
  const std::vector<float> first = prefill(*model_, prompt, *cache, cancel, &out.reused);
  for (Scored& s : out.continuations) {  // each overwrites the positions after the prompt
    s.logprobs.push_back(static_cast<float>(log_probability(first, s.ids[0])));
    std::vector<InputRow> rows;
    std::vector<int32_t> wanted;
    for (size_t i = 0; i + 1 < s.ids.size(); i++) {
      rows.push_back({s.ids[i], nullptr, {cache.get(), static_cast<int32_t>(n + i)}});
      wanted.push_back(static_cast<int32_t>(i));
    }
    if (rows.empty()) continue;
    std::vector<float> logits(rows.size() * model_->vocab);
    model_->forward(rows, wanted, logits.data(), cancel);
    check_finite(logits);
    for (size_t i = 0; i < rows.size(); i++)
      s.logprobs.push_back(static_cast<float>(
          log_probability(std::span(logits).subspan(i * model_->vocab, model_->vocab), s.ids[i + 1])));
  }
  return out;
}

std::vector<float> Engine::logits(const std::vector<Segment>& segments, const CancelToken* cancel) const {
  const Prompt prompt = build_prompt(*model_, *tokenizer_, segments);
  check_context(*model_, prompt.ids.size(), 0);
  const std::unique_ptr<KvCache> cache = model_->new_cache(static_cast<int64_t>(prompt.ids.size()));
  std::vector<InputRow> rows;
  std::vector<int32_t> wanted;
  for (size_t i = 0; i < prompt.ids.size(); i++) {
    rows.push_back({prompt.ids[i], prompt.embedding[i], {cache.get(), static_cast<int32_t>(i)}});
    wanted.push_back(static_cast<int32_t>(i));
  }
  std::vector<float> out(rows.size() * model_->vocab);
  model_->forward(rows, wanted, out.data(), cancel);
  return out;
}

}  // namespace ke
