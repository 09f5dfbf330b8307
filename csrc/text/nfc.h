// Unicode's normalization form C: what is written with combining marks becomes one character where there is one.
#pragma once
#include <string>
#include <string_view>

namespace ke {

// text is well-formed UTF-8, and so is the result, of at most three times its bytes. Linear but for runs of combining
// marks, which are sorted. Characters that are not assigned in the tables' version of Unicode stay as they are.
std::string to_nfc(std::string_view text);

}  // namespace ke
