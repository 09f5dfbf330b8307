// What makes of an image the rows of a decoder's sequence, or those that its cross layers look at. A model's parts have
// one; const, so that calls share it.
#pragma once
#include <memory>

#include "layers/workspace.h"
#include "models/model.h"

namespace ke {

class ImageEncoder {
 public:
  virtual ~ImageEncoder() = default;
  // What happens to an image of `model` on the host; see Model::prepare.
  virtual std::unique_ptr<const PreparedImage> prepare(const Model& model, const ImageView& image,
                                                       const CancelToken* cancel) const = 0;
  // What prepare gave -> (rows, width of the decoder or of its memory) on the device, in the workspace.
  virtual Mat encode(Workspace& ws, const PreparedImage& image, const CancelToken* cancel) const = 0;
  virtual int64_t rows() const = 0;  // of every image
};

}  // namespace ke
