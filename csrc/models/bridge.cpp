#include "models/bridge.h"

#include "models/shapes.h"

namespace ke {

Schema qformer_rows(const std::string& architecture, QformerConfig& q) {
  return {
      named("qformer.width", whole(architecture + ".qformer.embedding_length", 8, 65536, &q.width,
                                   "a multiple of heads of 8, 16, ... 256")),
      named("qformer.ff_width", whole(architecture + ".qformer.feed_forward_length", 8, 262144, &q.ff_width)),
      named("qformer.layers", whole(architecture + ".qformer.block_count", 1, 512, &q.layers)),
      named("qformer.heads", whole(architecture + ".qformer.attention.head_count", 1, 1024, &q.heads,
                                   "divides " + architecture + ".qformer.embedding_length")),
      named("qformer.queries", whole(architecture + ".qformer.query_count", 1, 4096, &q.queries,
                                     "fits " + architecture + ".context_length")),
      named("qformer.cross_every", whole(architecture + ".qformer.cross_attention_every", 1, 512, &q.cross_every)),
      named("qformer.eps", real(architecture + ".qformer.attention.layer_norm_epsilon", 1e-13, 0.1, &q.eps)),
  };
}

void check_qformer(const GgufFile& file, const std::string& architecture, const QformerConfig& q,
                   const DecoderConfig& d) {
  check_file(file, q.width % q.heads == 0 && q.width / q.heads % 8 == 0 && q.width / q.heads <= 256, architecture,
             ".qformer.embedding_length is ", q.width, " and ", architecture, ".qformer.attention.head_count ", q.heads,
             "; expected heads of 8, 16, 24, ... or 256 values");
  check_file(file, q.queries + 4 <= d.context, architecture, ".context_length is ", d.context,
             "; expected room for a picture's ", q.queries, " tokens and 4 more");
}

QformerShape qformer_shape(const QformerConfig& q, const VisionConfig& v, const DecoderConfig& d) {
  QformerShape s;
  s.block = plain_block(q.width, q.ff_width, q.heads, q.eps);
  s.block.post_norm = true;
  s.layers = q.layers, s.queries = q.queries, s.cross_every = q.cross_every;
  s.feature_width = v.width, s.width = d.width;
  return s;
}

SquareParts bridge_parts(const QformerConfig& q, const VisionConfig& v, const DecoderConfig& d) {
  SquareParts p;
  p.image = image_input(v);
  p.vision = vision_tower(v);
  p.load_projector = [shape = qformer_shape(q, v, d)](Backend& backend, Weights& weights) {
    return std::make_unique<Qformer>(backend, weights, shape);
  };
  return p;
}

}  // namespace ke
