// The runtime behind every binding: a model file on a device. Const after loading; any number of threads may call it.
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/recorder.h"
#include "base/limits.h"
#include "engine/drafts.h"
#include "engine/generate.h"
#include "engine/prefix_cache.h"

namespace ke {

struct LoadOptions {
  BackendOptions backend;
  LoadMode mode = LoadMode::Mmap;
  // For keys and values kept with encoded images and of the last prompt without images, see prefix_cache.h; 0: none.
  size_t prefix_bytes = limits::kDefaultPrefixMegabytes << 20;
  DType kv_type = DType::F16;  // of keys and values, or Q8_0, see Decoder; kv_type_of has it by name
  // auto, fixed or off, see DraftMode; empty: what KOSMOS_EDGE_DRAFTS says, else auto. Where the device samples, auto
  // is off: no pass was ever timed there.
  std::string drafts;
  // Folder of the files by which processes share weights in the device's layout (docs/sharing.md); empty: they are made
  // in memory of this process.
  std::string shared_weights;
  std::string mmproj;  // a second file: of the pair's vision encoder (models/pair.h); empty: there is none
  // How the file becomes a model; empty: as the architecture that it names (models/registry.cpp).
  std::function<std::unique_ptr<Model>(std::shared_ptr<GgufFile>, std::shared_ptr<Backend>, DType kv_type)> load_model;
  // Told of every product with a matrix of the file, for calibration; nullptr: nobody is.
  std::shared_ptr<ActivationRecorder> recorder;
  // How many bytes of weights are loaded, on the loading thread, after each tensor; may throw to end the load.
  std::function<void(uint64_t done, uint64_t total)> on_progress;
};

// "f16" or "q8_0"; InvalidRequest.
DType kv_type_of(std::string_view name);

struct Scored {
  std::vector<int32_t> ids;     // the continuation's tokens
  std::vector<float> logprobs;  // ln p of each, given the prompt and the ones before
  bool greedy = true;           // each was the likeliest at its place: greedy decoding without rules would say them
};

struct Scoring {
  std::vector<Scored> continuations;
  size_t reused = 0;  // positions of the prompt that were not computed again
};

class Engine {
 public:
  // ModelNotFound, ModelCorrupt, DeviceUnavailable, OutOfMemory, Io. Device "auto": where a better device that is
  // installed cannot be used or has not enough memory, the next one is.
  static std::shared_ptr<Engine> load(const std::string& path, const LoadOptions& options);

  const GgufFile& file() const { return *file_; }
  const Backend& backend() const { return *backend_; }
  const Model& model() const { return *model_; }
  // Why a better device than this one is not used, in a line; empty where none is installed or asked for.
  const std::string& fallback() const { return fallback_; }
  const Sharing& sharing() const { return sharing_; }  // of LoadOptions::shared_weights
  std::shared_ptr<const Tokenizer> tokenizer() const { return tokenizer_; }
  // What answers have taught, which is used for those to come; the mode may be changed at any time.
  Drafts& drafts() const { return *drafts_; }
  // How keys and values are kept: "f32", "f16" or "q8_0"; and the bytes of one position of a sequence.
  const char* kv_type() const;
  size_t kv_position_bytes() const { return kv_position_bytes_; }

  // keep: what prompts that begin with the image have in common is computed once and stays with it.
  std::shared_ptr<const ImageEmbedding> encode_image(const ImageView& image, const CancelToken* cancel,
                                                     bool keep = false) const;
  // The two halves of it: what the host does, which can be done ahead, and what the device does.
  std::unique_ptr<const PreparedImage> prepare_image(const ImageView& image, const CancelToken* cancel) const;
  std::shared_ptr<const ImageEmbedding> encode_prepared(const PreparedImage& image, const CancelToken* cancel,
                                                        bool keep = false) const;
  // An embedding again from its saved values; InvalidRequest where these are not as many, or not finite.
  // Model::given_rows, for Segment::Kind::Rows.
  std::shared_ptr<const ImageEmbedding> given_rows(std::vector<float> values, int64_t count, bool keep) const;
  std::shared_ptr<const ImageEmbedding> restore_image(std::vector<float> values, int64_t width, int64_t height,
                                                      bool keep) const;
  // What the image's rows are beside these words, for an image whose rows depend on them. InvalidRequest,
  // ContextTooLong.
  std::shared_ptr<const ImageEmbedding> read_image(const ImageEmbedding& image, std::string_view words) const;
  // The segments as token ids and images: to be made once per call, and then handed on. Images whose rows depend on
  // words are read here. InvalidRequest, ContextTooLong. goes_on: they will stand behind another prompt, see
  // build_prompt.
  Prompt prompt(const std::vector<Segment>& segments, bool goes_on = false) const;
  // The vectors of texts, (texts, ModelInfo::embedding), each of length 1, of a model that compares (its other half:
  // encode_image). truncate: a text that is too long is cut, as its makers do, and `cut` (may be nullptr) counts those;
  // else ContextTooLong. InvalidRequest for a model that writes text, no text, and ill-formed ones.
  std::vector<float> embed_texts(std::span<const std::string> texts, bool truncate, const CancelToken* cancel,
                                 size_t* cut = nullptr) const;
  // The segments' prompt without its images and rows. InvalidRequest where it has none, or is nothing else.
  std::shared_ptr<const Prompt> blind_prompt(const std::vector<Segment>& segments) const;
  Generation generate(const Prompt& prompt, const GenerateParams& params, const OnToken& on_token,
                      const CancelToken* cancel) const;
  // How likely each continuation is after the prompt: every continuation is a sequence of segments without images.
  Scoring score(const Prompt& prompt, const std::vector<std::vector<Segment>>& continuations,
                const CancelToken* cancel) const;
  // (positions, vocab) for every position of the prompt, as the decoder sees it, and of an answer's ids behind it.
  std::vector<float> logits(const Prompt& prompt, std::span<const int32_t> answer, const CancelToken* cancel) const;
  // (positions, width), likewise: Model::forward_states.
  std::vector<float> states(const Prompt& prompt, std::span<const int32_t> answer, const CancelToken* cancel) const;

 private:
  struct Whole {  // all rows of a prompt and an answer, computed in one pass
    std::unique_ptr<KvCache> cache;
    std::vector<InputRow> rows;
    std::vector<int32_t> all;
  };
  Whole whole(const Prompt& prompt, std::span<const int32_t> answer, const CancelToken* cancel) const;
  void read_images(const std::vector<Segment>& segments, Prompt& prompt) const;
  static std::shared_ptr<Engine> load_named(const std::string& path, const LoadOptions& options);
  static std::shared_ptr<Engine> load_once(const std::string& path, const LoadOptions& options, SharingStep step,
                                           std::optional<SharingStep>* again);
  std::shared_ptr<const ImageEmbedding> encode(const PreparedImage& image, const CancelToken* cancel, bool keep,
                                               std::chrono::steady_clock::time_point start) const;
  std::shared_ptr<ImageEmbedding> make_embedding(std::shared_ptr<const ImageFeatures> features, bool keep) const;

  std::shared_ptr<GgufFile> file_;
  std::shared_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<PrefixBudget> prefixes_;
  std::unique_ptr<Drafts> drafts_;
  std::string fallback_;
  Sharing sharing_;
  size_t kv_position_bytes_ = 0;
  std::shared_ptr<PrefixCache> shared_prefix_;  // <s><image>, the same for every image; filled by the first
  std::unique_ptr<PrefixCache> text_prefix_;    // of prompts without images: a system prompt, a chat; or nullptr
};

}  // namespace ke
