#include "models/flamingo.h"

#include <utility>

#include "models/shapes.h"

namespace ke {

Schema perceiver_rows(const std::string& architecture, PerceiverConfig& p) {
  return {
      named("perceiver.layers", whole(architecture + ".perceiver.block_count", 1, 512, &p.layers)),
      named("perceiver.heads", whole(architecture + ".perceiver.attention.head_count", 1, 1024, &p.heads)),
      named("perceiver.head_width",
            whole(architecture + ".perceiver.attention.key_length", 8, 256, &p.head_dim, "a multiple of 8")),
      named("perceiver.ff_width", whole(architecture + ".perceiver.feed_forward_length", 8, 262144, &p.ff_width)),
      named("perceiver.latents", whole(architecture + ".perceiver.query_count", 1, 4096, &p.latents)),
      named("perceiver.eps", real(architecture + ".perceiver.attention.layer_norm_epsilon", 1e-12, 0.1, &p.eps)),
  };
}

void check_perceiver(const GgufFile& file, const std::string& architecture, const PerceiverConfig& p,
                     const VisionConfig& v) {
  check_file(file, p.head_dim % 8 == 0, architecture, ".perceiver.attention.key_length is ", p.head_dim,
             "; expected a multiple of 8");
  check_file(file, v.projection == v.width, "clip.vision.projection_dim is ", v.projection,
             "; expected clip.vision.embedding_length, ", v.width);
}

void check_head_norms(const GgufFile& file, const std::string& key, bool flag, const std::string& tensor) {
  const bool there = file.find_tensor(tensor) != nullptr;
  check_file(file, there == flag, key, " is ", flag ? "true" : "false", ", tensor ", tensor, " is ",
             there ? "there" : "missing", "; expected both or neither");
}

PerceiverShape perceiver_shape(const PerceiverConfig& p, const VisionConfig& v) {
  PerceiverShape s;
  s.block = plain_block(v.width, p.ff_width, p.heads, p.eps);
  s.block.head_dim = p.head_dim, s.block.bias = false;
  s.layers = p.layers, s.latents = p.latents;
  return s;
}

VisionLanguageParts flamingo_parts(const ImageInput& image, const VitShape& vision, const PerceiverShape& perceiver,
                                   DecoderShape decoder) {
  SquareParts p;
  p.image = image, p.vision = vision;
  p.load_projector = [perceiver](Backend& backend, Weights& weights) {
    return std::make_unique<Perceiver>(backend, weights, perceiver);
  };
  return square_parts(p, std::move(decoder), /*rows_in_sequence=*/false);
}

}  // namespace ke
