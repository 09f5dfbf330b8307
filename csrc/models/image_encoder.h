// What makes of an image the rows of a decoder's sequence, or those that its cross layers look at. A model's parts have
// one; const, so that calls share it.
#pragma once
#include <memory>
#include <string_view>

#include "layers/workspace.h"
#include "models/model.h"

namespace ke {

// Makes an image's rows of its features and of the words beside it in a prompt.
class WordsReader {
 public:
  virtual ~WordsReader() = default;
  virtual int64_t rows() const = 0;           // of every image
  virtual int64_t feature_width() const = 0;  // of what it reads
  // features (n, feature_width) and well-formed words -> (rows, width of the decoder), further on in the workspace.
  // ContextTooLong for more words than it has places for.
  virtual Mat read(Workspace& ws, Mat features, std::string_view words) const = 0;
};

class ImageEncoder {
 public:
  virtual ~ImageEncoder() = default;
  // What happens to an image of `model` on the host; see Model::prepare.
  virtual std::unique_ptr<const PreparedImage> prepare(const Model& model, const ImageView& image,
                                                       const CancelToken* cancel) const = 0;
  // What prepare gave -> (rows, width of the decoder or of its memory) on the device, in the workspace.
  virtual Mat encode(Workspace& ws, const PreparedImage& image, const CancelToken* cancel) const = 0;
  virtual int64_t rows() const = 0;  // of every image
  // Where an image's rows depend on words: encode gives (rows, feature_width) features, and this the rows. Else
  // nullptr.
  virtual const WordsReader* reader() const { return nullptr; }
};

}  // namespace ke
