// The tokenizer of a model file.
#pragma once
#include <memory>

#include "format/gguf.h"
#include "text/tokenizer.h"

namespace ke {

// The kind that tokenizer.ggml.model names, as llama.cpp's GGUF keys spell its vocabulary:
//   "t5"     unigram: tokens, scores, token_type, precompiled_charsmap, unknown_token_id
//   "llama"  sentencepiece BPE: tokens, scores, token_type, unknown_token_id (0), precompiled_charsmap (none),
//            add_space_prefix (true), remove_extra_whitespaces (false), and two keys of this project:
//            space_prefix_every_segment (true), space_prefix_before_space (true); see SpmBpeVocabulary
//   "gpt2"   byte-level BPE: tokens, token_type, merges, pre: "gpt-2", "llama-bpe", "dbrx", "qwen2" or "clip"
//            (this project's name of CLIP's words), and a key of this project: normalizer (none; "clip" has its own),
//            "nfc"
// Values in brackets are the defaults. ModelCorrupt, with the file's path, for anything else.
std::shared_ptr<const Tokenizer> make_tokenizer(const GgufFile& file);

}  // namespace ke
