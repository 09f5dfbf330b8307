#include "models/shapes.h"

namespace ke {

BlockShape plain_block(int64_t width, int64_t ff_width, int64_t heads, float eps) {
  BlockShape b;
  b.width = width, b.ff_width = ff_width;
  b.heads = b.kv_heads = heads, b.head_dim = width / heads;
  b.norm.eps = eps;
  return b;
}

VitShape vision_tower(const VisionConfig& v) {
  VitShape s;
  s.block = plain_block(v.width, v.ff_width, v.heads, v.eps);
  s.patches = v.patches(), s.patch_values = v.patch_values(), s.layers = v.layers;
  s.pre_norm = v.kind == TowerKind::Clip || v.kind == TowerKind::ClipErf;
  s.patch_bias = !s.pre_norm;
  s.class_token = v.kind != TowerKind::Siglip;
  switch (v.kind) {
    case TowerKind::Clip:
      s.block.activation = Activation::QuickGelu;
      break;
    case TowerKind::Siglip:
      s.block.activation = Activation::GeluTanh;
      break;
    case TowerKind::ClipErf:
    case TowerKind::Eva:
      s.block.activation = Activation::GeluErf;
      break;
  }
  return s;
}

VitShape tower_patches(const VisionConfig& v, int64_t layer) {
  VitShape s = vision_tower(v);
  s.layers = v.layers + 1 + layer;
  s.post_norm = s.keep_class = false;
  return s;
}

DecoderShape rotary_decoder(const DecoderConfig& d) {
  DecoderShape s;
  s.block = plain_block(d.width, d.ff_width, d.heads, d.eps);
  s.block.kv_heads = d.key_heads(), s.block.head_dim = d.key_width();
  s.block.norm = {NormKind::Rms, d.eps, /*bias=*/false};
  s.block.bias = false, s.block.qkv_bias = d.qkv_bias, s.block.gated = true;
  s.block.activation = Activation::Silu;
  s.layers = d.layers, s.vocab = d.vocab, s.context = d.context;
  s.position = RopePositions{.base = d.rope_base, .dims = s.block.head_dim, .scale = d.rope_scale};
  s.tied_output = d.tied_output;
  return s;
}

DecoderShape opt_decoder(const DecoderConfig& d) {
  DecoderShape s;
  s.block = plain_block(d.width, d.ff_width, d.heads, d.eps);
  s.block.activation = Activation::Relu;
  s.layers = d.layers, s.vocab = d.vocab, s.context = d.context;
  s.position = LearnedPositions{.offset = 2};
  return s;
}

}  // namespace ke
