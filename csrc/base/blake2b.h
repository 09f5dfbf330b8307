// BLAKE2b with 32 bytes of digest and no key (RFC 7693): equal digests mean equal bytes, whoever made them.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace ke {

using Digest = std::array<uint8_t, 32>;

Digest blake2b(std::span<const uint8_t> bytes);

}  // namespace ke
