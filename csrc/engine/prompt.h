// A prompt is a sequence of segments: texts, images and boxes in any order and number.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "models/model.h"
#include "text/tokenizer.h"

namespace ke {

class Drafts;  // engine/drafts.h
class PrefixCache;
class Source;  // engine/source.h

// An encoded image; may be used in any number of prompts of the model that made it.
struct ImageEmbedding {
  // What an unread one became beside the words of the last prompt that began with it, so that the same words find its
  // keys and values again. Any number of threads may use it.
  struct LastReading {
    std::mutex mutex;
    std::string words;
    std::shared_ptr<const ImageEmbedding> image;
  };

  ImageEmbedding();
  const uint64_t serial;  // no two of a process have the same, also one after the other
  std::shared_ptr<const ImageFeatures> features;
  double encode_ms = 0;
  int64_t width = 0, height = 0;  // of the image; 0: there is none
  // For prompts whose first image this is; either may be nullptr, then nothing is kept.
  std::shared_ptr<PrefixCache> prefix;         // its own
  std::shared_ptr<PrefixCache> shared_prefix;  // what stands before the image, shared by all of an engine
  std::unique_ptr<LastReading> last_reading;   // beside `prefix`, where the features are unread

  // Frees what is kept for later prompts.
  void forget() const;
};

struct Segment {
  enum class Kind {
    Text,   // plain characters, also where they spell a tag; BPE tokenizers join texts and tags that touch
    Tags,   // text whose tag strings are tags
    Image,  // the image's rows with the ids around them (ImageLayout)
    Rows,   // the rows alone: Engine::given_rows; a prompt begins with them as with an image
    Boxes,  // <object> upper-left lower-right ... </object>, several joined by the delimiter (Grounding)
    Ids,    // token ids as they are
  };
  Kind kind = Kind::Text;
  std::string text;
  std::shared_ptr<const ImageEmbedding> image;
  std::vector<std::pair<int32_t, int32_t>> cells;
  std::vector<int32_t> ids;
};

struct Prompt {
  struct PlacedImage {
    size_t begin, end;                            // positions of all of its ids
    size_t first;                                 // position of its first row; the others follow, if it has any
    size_t unseen;                                // from here on it is not looked at: ModelInfo::document_end
    std::shared_ptr<const ImageEmbedding> image;  // keeps the rows and the memory alive
  };
  std::vector<int32_t> ids;         // ModelInfo::begin first, or behind its first images; ModelInfo::end last
  std::vector<PlacedImage> images;  // in order of position
  int32_t image_segment = 0;        // ImageLayout::segment
  // Where an encoder reads the prompt: that prompt; `ids` then are those that the decoder's sequence begins with, and
  // there are no images.
  std::shared_ptr<const Source> source;
  // What the model is told, wherever it goes.
  const Prompt& told() const;
  // Without images: its engine's, which must outlive the prompt; or nullptr, then nothing is kept.
  PrefixCache* text_prefix = nullptr;
  // Its engine's, which must outlive the prompt; or nullptr, then nothing is learned for drafts and none is made of it.
  Drafts* drafts = nullptr;
  // The position as the decoder takes it; the prompt must live until it is computed. It looks at the last image whose
  // `first` is not behind it: none, before the first image and behind the end of that image's document.
  InputRow row(size_t position, KvCache* cache) const;
  // The same of a token of an answer, at a position behind the prompt: it looks at the prompt's last image, or at what
  // the encoder made of the source, which must have been read.
  InputRow row_behind(int32_t id, size_t position, KvCache* cache) const;
};

// InvalidRequest when there is no segment, a cell or id is out of range, an image was encoded by another
// model, or there are boxes and the model has no location tokens. goes_on: the segments will stand behind another
// prompt, and a text in front begins a word; nothing ends them.
Prompt build_prompt(const Model& model, const Tokenizer& tokenizer, const std::vector<Segment>& segments,
                    bool goes_on = false);

// The words beside each image and each `Rows`, in order, for Model::read: the texts up to the next image, for the first
// one also those in front of it; images without words between them share theirs. What stands between texts parts them.
std::vector<std::string> words_beside_images(const std::vector<Segment>& segments);

}  // namespace ke
