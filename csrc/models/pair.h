// llama.cpp's pairs: a language model in one GGUF file, a vision encoder with its projector ("mmproj") in another.
// Joined, they are one file in the form that a model of ours reads: its keys, names and order of rows. Nothing is
// quantized anew.
#pragma once
#include <memory>
#include <string>

#include "format/gguf.h"
#include "models/info.h"

namespace ke {

// How a model takes a pair of a LLaMA (general.architecture "llama") and a CLIP tower with a linear or MLP projector.
struct PairKind {
  const char* architecture;   // general.architecture of the joined file
  const char* placeholder;    // of an image's rows, where the vocabulary has that token; else the unknown one is
  PromptFormats mlp, linear;  // prompts of models with either projector
  const char *mlp_aspect, *linear_aspect;  // what becomes of pictures that are not square
  int64_t max_new_tokens;
};

// ModelCorrupt, with the file's path, for what cannot be such a model: what was expected and what was found.
std::shared_ptr<GgufFile> join_pair(const PairKind& kind, std::shared_ptr<GgufFile> text,
                                    std::shared_ptr<GgufFile> vision);

}  // namespace ke
