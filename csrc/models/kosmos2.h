// KOSMOS-2: ViT -> resampler -> decoder, and the prompt layout. The only file pair that knows this model.
#pragma once
#include <memory>

#include "models/model.h"

namespace ke {

std::unique_ptr<Model> load_kosmos2(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend);

}  // namespace ke
