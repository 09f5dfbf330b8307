// Small letters, character by character, as Rust's char::to_lowercase has them (the tokenizers library's Lowercase).
#pragma once
#include <string>
#include <string_view>

namespace ke {

// text is well-formed UTF-8, and so is the result. A capital sigma becomes the same letter wherever it stands.
std::string to_lower(std::string_view text);

}  // namespace ke
