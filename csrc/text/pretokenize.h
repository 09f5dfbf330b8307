// How byte-level BPE cuts a text into the stretches that it encodes one by one: the regular expressions of GPT-2 and of
// its successors, written out. None of them looks back, so one scan does it.
#pragma once
#include <cstddef>
#include <string_view>

namespace ke {

enum class Pretokenizer {
  // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  Gpt2,
  // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  // that is tiktoken's cl100k_base, and LLaMA 3
  Cl100k,
  Qwen2,  // the same with \p{N} for \p{N}{1,3}
  // 's|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+, and \s+, which is dropped (ByteBpeVocabulary::words)
  Clip,
};

// The end of the stretch that begins at text[at]. text: well-formed UTF-8. at < text.size(). All stretches together are
// found in linear time.
size_t pretoken_end(Pretokenizer kind, std::string_view text, size_t at);

// Whether the character at text[at] is one of \s. at < text.size().
bool is_blank_at(std::string_view text, size_t at);

}  // namespace ke
