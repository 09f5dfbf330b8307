// Unicode's normalization form C: what is written with combining marks becomes one character where there is one.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ke {

// text is well-formed UTF-8, and so is the result, of at most three times its bytes. Linear but for runs of combining
// marks, which are sorted. Characters that are not assigned in the tables' version of Unicode stay as they are.
std::string to_nfc(std::string_view text);

// The two steps of form D: appends what the character decomposes to (itself, where it does not), and sorts runs of
// combining marks by class, those of one class in their order.
void decompose(uint32_t code, std::vector<uint32_t>& out);
void order_marks(std::vector<uint32_t>& codes);

}  // namespace ke
