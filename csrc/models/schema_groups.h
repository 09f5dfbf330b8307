// Groups of schema rows that several architectures share, with the numbers that they fill and the checks between them.
#pragma once
#include <cstdint>
#include <string>

#include "models/schema.h"

namespace ke {

// ---- general.*, and what the converter and the users are told: <architecture>.notice, .trained_tasks, .checksum

struct GeneralConfig {
  std::string name, notice, trained_tasks;
};
Schema general_rows(const std::string& architecture, GeneralConfig& g);
// Checksums, where there are some, are one for each tensor.
void check_checksums(const GgufFile& file, const std::string& architecture);

// Heads divide the width of a part ("decoder") into widths that attention supports.
void check_heads(const GgufFile& file, const char* part, int64_t width, int64_t heads);

// ---- clip.*: a ViT for square images

enum class TowerKind {
  Clip,     // a class token, a norm in front of the blocks, quick GELU
  ClipErf,  // the same with erf GELU
  Siglip,   // neither; patches have a bias, GELU by tanh; what is left of an image beside its whole patches is cut off
  Eva,      // as BLIP-2 took it over: a class token, no norm in front of the blocks, patches have a bias, erf GELU
};

struct VisionConfig {
  TowerKind kind = TowerKind::Clip;        // set by the model, not by the file
  int64_t image_size = 0, patch_size = 0;  // pixels
  int64_t width = 0, ff_width = 0, layers = 0, heads = 0;
  int64_t projection = 0;  // width of an image token
  float eps = 0;
  std::array<float, 3> mean{}, std{};  // of pixels / 255, RGB
  int64_t patches() const { return (image_size / patch_size) * (image_size / patch_size); }
  int64_t tokens() const { return patches() + 1; }
  int64_t patch_values() const { return 3 * patch_size * patch_size; }
};
// Rows and checks of v.kind.
Schema vision_rows(const std::string& architecture, VisionConfig& v);
void check_vision(const GgufFile& file, const VisionConfig& v);

// ---- <architecture>.*: the decoder and the defaults of generation

struct DecoderConfig {
  int64_t width = 0, ff_width = 0, layers = 0, heads = 0, context = 0, vocab = 0;
  float eps = 0;             // of the norms
  int64_t kv_heads = 0;      // 0: as many as heads
  int64_t head_dim = 0;      // 0: width / heads
  float rope_base = 0;       // of rotary positions
  float rope_scale = 1;      // by which they are divided
  bool qkv_bias = false;     // set by the model, not by the file
  bool tied_output = false;  // the embedding is the output matrix, too
  int64_t key_heads() const { return kv_heads > 0 ? kv_heads : heads; }
  int64_t key_width() const { return head_dim > 0 ? head_dim : width / heads; }  // of a head
};
// Its sizes alone.
Schema decoder_size_rows(const std::string& architecture, DecoderConfig& d);
// Of a decoder of layer norms, whose heads have keys and values of their own.
Schema decoder_rows(const std::string& architecture, DecoderConfig& d);
// Of LLaMA's kind: RMS norms, rotary positions, heads that may share keys and values.
Schema rotary_decoder_rows(const std::string& architecture, DecoderConfig& d);
void check_decoder(const GgufFile& file, const std::string& architecture, const DecoderConfig& d);

struct GenerationConfig {
  int64_t max_new_tokens = 0;        // at most the context
  int64_t no_repeat_ngram_size = 0;  // 0: no rule
  float repetition_penalty = 1;      // 1: none
};
Schema generation_rows(const std::string& architecture, GenerationConfig& g);
void check_generation(const GgufFile& file, const std::string& architecture, const GenerationConfig& g,
                      const DecoderConfig& d);

// ---- <architecture>.image_token_count, .first_slot_token_id: a fixed number of rows per image, with ids in a row or
// with one id

struct ImagePlaceholders {
  int64_t count = 0;
  int32_t first = 0;
  int32_t step = 1;  // placeholder j has id first + j * step
};
Schema placeholder_rows(const std::string& architecture, ImagePlaceholders& s);
// The placeholders are in the vocabulary, and an image fits the context.
void check_placeholders(const GgufFile& file, const std::string& architecture, const ImagePlaceholders& s,
                        const DecoderConfig& d);

// ---- <architecture>.prompt.*

Schema prompt_rows(const std::string& architecture, PromptFormats& p);
Schema chat_prompt_rows(const std::string& architecture, PromptFormats& p);
// Of a chat whose questions without an image are no questions with the image's place left out.
Schema follow_up_rows(const std::string& architecture, PromptFormats& p);
void check_follow_up(const GgufFile& file, const std::string& architecture, const PromptFormats& p);
Schema grounding_prompt_rows(const std::string& architecture, PromptFormats& p);
// A format has the place that its row's rule names: without it, what the user asks would be dropped. Its {image}, where
// it has one, is the only one.
void check_prompts(const GgufFile& file, const std::string& architecture, bool grounding);

}  // namespace ke
