// One architecture: its name in general.architecture, its schema, and how its files become models. Each is a file of
// this folder and a row of registry.cpp.
#pragma once
#include <memory>

#include "models/model.h"
#include "models/schema.h"

namespace ke {

struct Architecture {
  const char* name;
  // The rows alone: what they point to is gone.
  Schema (*schema)();
  // Reads and checks all metadata and no tensor. ModelCorrupt names key, expected range and value. What comes back is
  // consistent: heads divide widths, ids name the pieces that they must, the prompt of one image fits the context.
  ModelInfo (*describe)(const GgufFile& file);
  // kv_type: see Decoder.
  std::unique_ptr<Model> (*load)(std::shared_ptr<GgufFile> file, std::shared_ptr<Backend> backend, DType kv_type);
  // A pair of files (models/pair.h) as one of this architecture; nullptr: it has none. pair_text: general.architecture
  // of the pair's language model.
  std::shared_ptr<GgufFile> (*join)(std::shared_ptr<GgufFile> text, std::shared_ptr<GgufFile> vision) = nullptr;
  const char* pair_text = nullptr;
};

const std::vector<const Architecture*>& architectures();
// That of the file's general.architecture; ModelCorrupt where it is none of them.
const Architecture& architecture_of(const GgufFile& file);
// A model's file, or with mmproj not empty the pair of a language model and that vision encoder as one file. Errors as
// GgufFile::open, and ModelCorrupt for what is no such pair.
std::shared_ptr<GgufFile> open_model(const std::string& path, const std::string& mmproj, LoadMode mode);

}  // namespace ke
