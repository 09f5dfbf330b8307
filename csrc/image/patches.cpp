// From the resized image to the rows that the patch embedding multiplies.
#include <cmath>

#include "base/error.h"
#include "image/image.h"

namespace ke {

std::vector<float> to_patches(const std::vector<uint8_t>& rgb, int64_t size, int64_t patch,
                              const std::array<float, 3>& mean, const std::array<float, 3>& std) {
  check_image_size(size, size, "a resized picture");
  KE_CHECK(patch >= 1 && patch <= size, InvalidRequest, "patches of side ", patch, " do not fit a picture of side ",
           size);
  KE_CHECK(rgb.size() == static_cast<size_t>(size * size * 3), InvalidRequest, "a picture of side ", size, " has ",
           size * size * 3, " bytes, not ", rgb.size());
  std::array<std::array<float, 256>, 3> normalised;  // (channel, byte)
  for (size_t c = 0; c < 3; ++c) {
    KE_CHECK(std::isfinite(mean[c]) && std::isfinite(std[c]) && std[c] > 0, InvalidRequest, "channel ", c, " has mean ",
             mean[c], " and standard deviation ", std[c], "; both must be finite and the latter positive");
    for (size_t byte = 0; byte < 256; ++byte) {
      normalised[c][byte] = static_cast<float>((static_cast<double>(byte) / 255.0 - mean[c]) / std[c]);
    }
  }
  const int64_t covered = size / patch * patch;
  std::vector<float> out(static_cast<size_t>(covered * covered * 3));
  float* next = out.data();
  for (int64_t top = 0; top < covered; top += patch) {
    for (int64_t left = 0; left < covered; left += patch) {
      for (size_t c = 0; c < 3; ++c) {
        for (int64_t y = top; y < top + patch; ++y) {
          const uint8_t* pixel = rgb.data() + (y * size + left) * 3;
          for (int64_t x = 0; x < patch; ++x) *next++ = normalised[c][pixel[x * 3 + static_cast<int64_t>(c)]];
        }
      }
    }
  }
  return out;
}

}  // namespace ke
