// The runtime behind every binding: a model file on a device. Const after loading; any number of threads may call it.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "engine/generate.h"

namespace ke {

struct LoadOptions {
  BackendOptions backend;
  LoadMode mode = LoadMode::Mmap;
};

struct Scored {
  std::vector<int32_t> ids;     // the continuation's tokens
  std::vector<float> logprobs;  // ln p of each, given the prompt and the ones before
};

class Engine {
 public:
  // ModelNotFound, ModelCorrupt, DeviceUnavailable, OutOfMemory, Io.
  static std::shared_ptr<Engine> load(const std::string& path, const LoadOptions& options);

  const GgufFile& file() const { return *file_; }
  const Backend& backend() const { return *backend_; }
  const Model& model() const { return *model_; }
  std::shared_ptr<const Tokenizer> tokenizer() const { return tokenizer_; }

  std::shared_ptr<const ImageEmbedding> encode_image(const ImageView& image, const CancelToken* cancel) const;
  Generation generate(const std::vector<Segment>& segments, const GenerateParams& params, const OnToken& on_token,
                      const CancelToken* cancel) const;
  // How likely each continuation is after the prompt: every continuation is a sequence of segments without pictures.
  std::vector<Scored> score(const std::vector<Segment>& segments,
                            const std::vector<std::vector<Segment>>& continuations, const CancelToken* cancel) const;
  // The token ids of a prompt, <s> and image slots included.
  std::vector<int32_t> prompt_ids(const std::vector<Segment>& segments) const;
  // (positions, vocab) for every position of the prompt.
  std::vector<float> logits(const std::vector<Segment>& segments, const CancelToken* cancel) const;

 private:
  std::shared_ptr<GgufFile> file_;
  std::shared_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace ke
