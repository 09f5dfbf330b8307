// Models in whose sequence the patches of an image stand: a ViT's inner features -> linear or MLP projector -> a
// decoder with rotary positions. What differs from one such model to the next is its kind.
#pragma once
#include <string>
#include <vector>

#include "models/square_encoder.h"

namespace ke {

struct PatchRowsKind {
  const char* name;  // general.architecture
  TowerKind tower;
  bool qkv_bias;  // of the decoder
  bool may_tie;   // the file says whether the embedding is the output matrix, too: NAME.output.tied
  Schema (*vocabulary)(const std::string& architecture, TokenizerConfig& t);
  std::vector<std::string> aspects;  // what may become of images that are not square: "pad", "crop", "squash"
};

struct PatchRowsConfig : VisionLanguageConfig {
  int64_t feature_layer = 0;  // -1: behind the tower's last block
  // Whose features stand side by side, feature_layer the deepest of them; empty: that one alone.
  std::vector<int32_t> feature_layers;
  int32_t image_token = 0;        // placeholder of every row of an image
  std::string aspect, projector;  // "linear" or "mlp2x_gelu"
  std::string stop;               // ends an answer, too; empty: none does
};

// What VisionLanguageFamily asks of a model.
Schema patch_rows_schema(const PatchRowsKind& kind, PatchRowsConfig& c);
ModelInfo patch_rows_info(const PatchRowsKind& kind, const GgufFile& file, const PatchRowsConfig& c);
VisionLanguageParts patch_rows_parts(const PatchRowsConfig& c);

// M has kName and kind().
template <class M>
struct PatchRowsModel {
  using Config = PatchRowsConfig;
  static Schema rows(Config& c) { return patch_rows_schema(M::kind(), c); }
  static ModelInfo info(const GgufFile& file, const Config& c) { return patch_rows_info(M::kind(), file, c); }
  static VisionLanguageParts parts(const Config& c) { return patch_rows_parts(c); }
};

}  // namespace ke
