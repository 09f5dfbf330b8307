// The numbers of a KOSMOS-2 file, read and cross-checked once against one schema table.
#pragma once
#include <array>
#include <cstdint>
#include <string>

#include "format/gguf.h"

namespace ke {

struct VisionConfig {
  int64_t image_size, patch_size;  // pixels
  int64_t width, ff_width, layers, heads;
  float eps;
  std::array<float, 3> mean, std;  // of pixels / 255, RGB
  int64_t patches() const { return (image_size / patch_size) * (image_size / patch_size); }
  int64_t tokens() const { return patches() + 1; }
  int64_t patch_values() const { return 3 * patch_size * patch_size; }
};

struct DecoderConfig {
  int64_t width, ff_width, layers, heads, context, vocab;
  float eps;
};

struct Kosmos2Config {
  VisionConfig vision;
  DecoderConfig decoder;
  int64_t latents;                 // image tokens per picture
  int64_t location_bins;           // per axis
  int32_t bos, eos, pad, unk;      // token ids
  int32_t image_begin, image_end;  // <image>, </image>
  int32_t first_slot;              // id of the first placeholder slot (the n-gram rule sees first_slot + j)
  int32_t phrase_begin, phrase_end, object_begin, object_end, delimiter, grounding;
  int32_t first_patch_index;     // <patch_index_0000>
  int64_t max_new_tokens;        // defaults of generation
  int64_t no_repeat_ngram_size;  // 0: no rule

  // ModelCorrupt names key, expected range and value. What comes back is consistent: heads divide widths, ids name the
  // pieces that they must, the prompt of one picture fits the context. Also checks the presence, type and size of the
  // tokenizer's arrays and the prompts, which others read.
  static Kosmos2Config read(const GgufFile& file);
};

}  // namespace ke
