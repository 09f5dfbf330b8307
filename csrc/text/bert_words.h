// How BERT's uncased tokenizer sees a text: cleaned, without accents, in lower case, cut into words (tokenizers'
// BertNormalizer and BertPreTokenizer).
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace ke {

// The words of a well-formed text, each well-formed and not empty. Controls are dropped; letters lose their accents and
// become small; punctuation marks and CJK ideographs are words of their own. Linear but for runs of combining marks,
// which are sorted.
std::vector<std::string> bert_words(std::string_view text);

}  // namespace ke
