#include "models/schema_groups.h"

#include "base/limits.h"
#include "format/utf8.h"

namespace ke {

void check_heads(const GgufFile& file, const char* part, int64_t width, int64_t heads) {
  check_file(file, width % heads == 0 && width / heads % 8 == 0 && width / heads <= 256, "the ", part, " has ", heads,
             " heads in a width of ", width, "; expected heads of 8, 16, 24, ... or 256 values");
}

// Lower bounds keep later sizes positive; upper bounds keep every product of two within 64 bits and every table within
// what a machine of today holds.

Schema general_rows(const std::string& architecture, GeneralConfig& g) {
  return {
      fixed_text("general.architecture", architecture),
      optional(text("general.name", &g.name)),
      optional(whole("general.alignment", 8, 65536, nullptr, "a power of two (format/gguf.h)")),
      optional(whole("general.quantization_version", 2, 2, nullptr)),
      optional(whole("general.file_type", 0, 1024, nullptr)),
      optional(text(architecture + ".notice", &g.notice)),
      optional(text(architecture + ".trained_tasks", &g.trained_tasks)),
      optional(list(architecture + ".checksum.sha256", MetaType::String, 64, 64, "one for each tensor")),
  };
}

void check_checksums(const GgufFile& file, const std::string& architecture) {
  const std::string key = architecture + ".checksum.sha256";
  if (!file.has(key)) return;
  const std::vector<std::string> sums = file.strings(key);
  check_count(file, key, sums.size(), file.tensors().size(), "one for each tensor");
  for (size_t i = 0; i < sums.size(); ++i)
    check_file(file, sums[i].size() == 64 && sums[i].find_first_not_of("0123456789abcdef") == std::string::npos, key,
               "[", i, "] is ", quoted(sums[i]), "; expected 64 hexadecimal digits");
}

Schema vision_rows(const std::string& architecture, VisionConfig& v) {
  const char* patch_rule =
      v.kind == TowerKind::Siglip ? "at most clip.vision.image_size" : "divides clip.vision.image_size";
  return {
      fixed_flag("clip.has_vision_encoder", true),
      fixed_text("clip.projector_type", architecture),
      fixed_flag("clip.use_gelu", v.kind != TowerKind::Clip),  // else quick gelu
      named("vision.image_size", whole("clip.vision.image_size", 1, 4096, &v.image_size, "at most 16384 patches")),
      named("vision.patch_size", whole("clip.vision.patch_size", 1, 256, &v.patch_size, patch_rule)),
      named("vision.width",
            whole("clip.vision.embedding_length", 8, 65536, &v.width, "a multiple of heads of 8, 16, ... 256")),
      named("vision.ff_width", whole("clip.vision.feed_forward_length", 8, 262144, &v.ff_width)),
      named("vision.layers", whole("clip.vision.block_count", 1, 512, &v.layers)),
      whole("clip.vision.projection_dim", 8, 65536, &v.projection, "equals " + architecture + ".embedding_length"),
      named("vision.heads",
            whole("clip.vision.attention.head_count", 1, 1024, &v.heads, "divides clip.vision.embedding_length")),
      named("vision.eps", real("clip.vision.attention.layer_norm_epsilon", 1e-12, 0.1, &v.eps)),
      named("vision.mean", triple("clip.vision.image_mean", -1, 2, &v.mean)),
      named("vision.std", triple("clip.vision.image_std", 1e-3, 1e3, &v.std)),
  };
}

void check_vision(const GgufFile& file, const VisionConfig& v) {
  check_heads(file, "vision encoder", v.width, v.heads);
  if (v.kind != TowerKind::Siglip)
    check_file(file, v.image_size % v.patch_size == 0, "clip.vision.image_size is ", v.image_size,
               "; expected a multiple of clip.vision.patch_size, ", v.patch_size);
  check_file(file, v.patch_size <= v.image_size, "clip.vision.patch_size is ", v.patch_size,
             "; expected at most clip.vision.image_size, ", v.image_size);
  check_file(file, v.patches() <= 16384, "pictures have ", v.patches(), " patches; at most 16384 are supported");
}

Schema decoder_size_rows(const std::string& architecture, DecoderConfig& d) {
  const std::string& a = architecture;
  return {
      named("decoder.context", whole(a + ".context_length", 8, 131072, &d.context,
                                     "times " + a + ".embedding_length at most 2^28; room for a picture and 4 tokens")),
      named("decoder.width",
            whole(a + ".embedding_length", 8, 65536, &d.width, "a multiple of heads of 8, 16, ... 256")),
      named("decoder.layers", whole(a + ".block_count", 1, 512, &d.layers)),
      named("decoder.ff_width", whole(a + ".feed_forward_length", 8, 262144, &d.ff_width)),
      named("decoder.heads",
            whole(a + ".attention.head_count", 1, 1024, &d.heads, "divides " + a + ".embedding_length")),
      named("decoder.vocab", whole(a + ".vocab_size", 16, 1 << 20, &d.vocab, "the length of the tokenizer's arrays")),
  };
}

Schema decoder_rows(const std::string& architecture, DecoderConfig& d) {
  const Schema norms = {named("decoder.eps", real(architecture + ".attention.layer_norm_epsilon", 1e-12, 0.1, &d.eps))};
  return decoder_size_rows(architecture, d) + norms;
}

Schema rotary_decoder_rows(const std::string& architecture, DecoderConfig& d) {
  const std::string& a = architecture;
  const Schema own = {
      named("decoder.eps", real(a + ".attention.layer_norm_rms_epsilon", 1e-12, 0.1, &d.eps)),
      named("decoder.kv_heads",
            whole(a + ".attention.head_count_kv", 1, 1024, &d.kv_heads, "divides " + a + ".attention.head_count")),
      optional(whole(a + ".attention.key_length", 8, 256, &d.head_dim, "a multiple of 8; absent: the width of a head")),
      named("decoder.rope_base", real(a + ".rope.freq_base", 1, 1e9, &d.rope_base)),
      optional(fixed_text(a + ".rope.scaling.type", "linear")),
      optional(real(a + ".rope.scaling.factor", 1, 1e4, &d.rope_scale)),
  };
  return decoder_size_rows(architecture, d) + own;
}

void check_decoder(const GgufFile& file, const std::string& architecture, const DecoderConfig& d) {
  if (d.head_dim == 0) check_heads(file, "decoder", d.width, d.heads);
  check_file(file, d.head_dim % 8 == 0, architecture, ".attention.key_length is ", d.head_dim,
             "; expected a multiple of 8");
  check_file(file, d.heads % d.key_heads() == 0, architecture, ".attention.head_count_kv is ", d.kv_heads,
             "; expected a divisor of ", architecture, ".attention.head_count, ", d.heads);
  check_file(file, d.context * d.width <= int64_t{1} << 28, architecture, ".context_length times ", architecture,
             ".embedding_length is ", d.context * d.width, "; at most ", int64_t{1} << 28, " are supported");
}

Schema generation_rows(const std::string& architecture, GenerationConfig& g) {
  return {
      named("max_new_tokens", whole(architecture + ".generation.max_new_tokens", 1, 131072, &g.max_new_tokens,
                                    "at most " + architecture + ".context_length")),
      named("no_repeat_ngram_size",
            whole(architecture + ".generation.no_repeat_ngram_size", 0, 131072, &g.no_repeat_ngram_size)),
      optional(real(architecture + ".generation.repetition_penalty", limits::kMinRepetitionPenalty,
                    limits::kMaxRepetitionPenalty, &g.repetition_penalty)),
  };
}

void check_generation(const GgufFile& file, const std::string& architecture, const GenerationConfig& g,
                      const DecoderConfig& d) {
  check_file(file, g.max_new_tokens <= d.context, architecture, ".generation.max_new_tokens is ", g.max_new_tokens,
             "; expected at most ", architecture, ".context_length, ", d.context);
}

Schema placeholder_rows(const std::string& architecture, ImagePlaceholders& s) {
  return {
      named("latents",
            whole(architecture + ".image_token_count", 1, 4096, &s.count, "fits the context and the vocabulary")),
      token_id(architecture + ".first_slot_token_id", &s.first, "room for a picture's slots in the vocabulary"),
  };
}

void check_placeholders(const GgufFile& file, const std::string& architecture, const ImagePlaceholders& s,
                        const DecoderConfig& d) {
  check_file(file, s.count + 4 <= d.context, architecture, ".context_length is ", d.context,
             "; expected room for a picture's ", s.count, " tokens and 4 more");
  const int64_t ids = s.step > 0 ? s.count : 1;
  check_file(file, s.first + ids <= d.vocab, architecture, ".first_slot_token_id is ", s.first, "; expected room for ",
             ids, ids > 1 ? " slots" : " slot", " within the vocabulary of ", d.vocab);
}

Schema prompt_rows(const std::string& architecture, PromptFormats& p) {
  return {
      text(architecture + ".prompt.caption", &p.caption),
      text(architecture + ".prompt.caption_detailed", &p.caption_detailed),
      text(architecture + ".prompt.question", &p.question, "holds {question}"),
  };
}

Schema chat_prompt_rows(const std::string& architecture, PromptFormats& p) {
  return {optional(text(architecture + ".prompt.system", &p.system))};
}

Schema follow_up_rows(const std::string& architecture, PromptFormats& p) {
  return {optional(text(architecture + ".prompt.follow_up", &p.follow_up, "holds {question}"))};
}

void check_follow_up(const GgufFile& file, const std::string& architecture, const PromptFormats& p) {
  const std::string key = architecture + ".prompt.follow_up";
  const auto has = [&](const char* place) { return p.follow_up.find(place) != std::string::npos; };
  check_file(file, !file.has(key) || (has("{question}") && !has("{image}")), key, " is ", quoted(p.follow_up),
             "; expected {question} in it, and no {image}");
}

Schema grounding_prompt_rows(const std::string& architecture, PromptFormats& p) {
  return {
      text(architecture + ".prompt.locate", &p.locate, "holds {phrase}"),
      text(architecture + ".prompt.describe", &p.describe, "holds {boxes}"),
      text(architecture + ".prompt.grounding", &p.grounding),
  };
}

void check_prompts(const GgufFile& file, const std::string& architecture, bool grounding) {
  PromptFormats unused;
  Schema rows = prompt_rows(architecture, unused);
  if (grounding) rows = rows + grounding_prompt_rows(architecture, unused);
  for (const SchemaRow& row : rows) {
    const std::string format = file.string(row.key), image = "{image}";
    check_file(file, format.find(image) == format.rfind(image), row.key, " is ", quoted(format),
               "; expected at most one {image} in it");
    if (row.rule.empty()) continue;
    const std::string place = row.rule.substr(row.rule.find('{'));
    check_file(file, format.find(place) != std::string::npos, row.key, " is ", quoted(format), "; expected ", place,
               " in it");
  }
}

}  // namespace ke
