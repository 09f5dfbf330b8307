#include "text/load_tokenizer.h"

#include <limits>

#include "base/error.h"
#include "text/byte_bpe.h"
#include "text/spm_bpe.h"
#include "text/unigram.h"

namespace ke {

namespace {

std::string charsmap_of(const GgufFile& file) {
  const std::vector<uint8_t> bytes = file.bytes("tokenizer.ggml.precompiled_charsmap");
  return {bytes.begin(), bytes.end()};
}

int32_t unknown_of(const GgufFile& file) {
  const uint32_t id = file.u32("tokenizer.ggml.unknown_token_id");
  KE_CHECK(id <= static_cast<uint32_t>(std::numeric_limits<int32_t>::max()), ModelCorrupt, "unknown_token_id is ", id);
  return static_cast<int32_t>(id);
}

bool flag(const GgufFile& file, const char* key, bool otherwise) {
  return file.has(key) ? file.boolean(key) : otherwise;
}

std::shared_ptr<const Tokenizer> make_unigram(const GgufFile& file) {
  UnigramVocabulary v;
  v.pieces = file.strings("tokenizer.ggml.tokens");
  v.scores = file.floats("tokenizer.ggml.scores");
  v.types = file.ints("tokenizer.ggml.token_type");
  v.charsmap = charsmap_of(file);
  v.unk = unknown_of(file);
  return std::make_shared<Unigram>(std::move(v));
}

std::shared_ptr<const Tokenizer> make_spm_bpe(const GgufFile& file) {
  SpmBpeVocabulary v;
  v.pieces = file.strings("tokenizer.ggml.tokens");
  v.scores = file.floats("tokenizer.ggml.scores");
  v.types = file.ints("tokenizer.ggml.token_type");
  if (file.has("tokenizer.ggml.precompiled_charsmap")) v.charsmap = charsmap_of(file);
  if (file.has("tokenizer.ggml.unknown_token_id")) v.unk = unknown_of(file);
  v.blank_prefix = flag(file, "tokenizer.ggml.add_space_prefix", true);
  v.fold_blanks = flag(file, "tokenizer.ggml.remove_extra_whitespaces", false);
  v.prefix_every_stretch = flag(file, "tokenizer.ggml.space_prefix_every_segment", true);
  v.prefix_before_blank = flag(file, "tokenizer.ggml.space_prefix_before_space", true);
  return std::make_shared<SpmBpe>(std::move(v));
}

std::shared_ptr<const Tokenizer> make_byte_bpe(const GgufFile& file) {
  ByteBpeVocabulary v;
  v.pieces = file.strings("tokenizer.ggml.tokens");
  v.types = file.ints("tokenizer.ggml.token_type");
  v.merges = file.strings("tokenizer.ggml.merges");
  const std::string pre = file.string("tokenizer.ggml.pre");
  if (pre == "llama-bpe") {
    v.pretokenizer = Pretokenizer::Cl100k;
    v.whole_pieces = true;
  } else if (pre == "dbrx") {  // llama.cpp's name of cl100k_base whose merges always run
    v.pretokenizer = Pretokenizer::Cl100k;
  } else if (pre == "qwen2") {
    v.pretokenizer = Pretokenizer::Qwen2;
  } else if (pre == "clip") {
    v.pretokenizer = Pretokenizer::Clip;
    v.words = v.nfc = true;
  } else {
    KE_CHECK(pre == "gpt-2", ModelCorrupt, "tokenizer.ggml.pre is \"", pre,
             "\", expected \"gpt-2\", \"llama-bpe\", \"dbrx\", \"qwen2\" or \"clip\"");
  }
  if (file.has("tokenizer.ggml.normalizer")) {
    const std::string form = file.string("tokenizer.ggml.normalizer");
    KE_CHECK(form == "nfc", ModelCorrupt, "tokenizer.ggml.normalizer is \"", form, "\", expected \"nfc\"");
    v.nfc = true;
  }
  KE_CHECK(!flag(file, "tokenizer.ggml.add_space_prefix", false), ModelCorrupt,
           "tokenizer.ggml.add_space_prefix is true, byte-level BPE supports only false");
  return std::make_shared<ByteBpe>(std::move(v));
}

}  // namespace

std::shared_ptr<const Tokenizer> make_tokenizer(const GgufFile& file) {
  try {
    const std::string kind = file.string("tokenizer.ggml.model");
    if (kind == "t5") return make_unigram(file);
    if (kind == "llama") return make_spm_bpe(file);
    if (kind == "gpt2") return make_byte_bpe(file);
    fail(ErrorCode::ModelCorrupt, "tokenizer.ggml.model is \"", kind, "\", expected \"t5\", \"llama\" or \"gpt2\"");
  } catch (const Error& e) {
    fail(e.code(), file.path(), ": tokenizer.ggml.*: ", e.what());
  }
}

}  // namespace ke
