// RGB bytes -> resized, normalised patches, bit-exact with PIL's bicubic resize.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "base/cancel.h"

namespace ke {

struct ImageView {
  const uint8_t* rgb = nullptr;   // height rows of width pixels of 3 bytes, contiguous, upright
  int64_t width = 0, height = 0;  // check_image_size
};

// InvalidRequest when an image of this size is outside base/limits.h; what names it in the message.
void check_image_size(int64_t width, int64_t height, const char* what);

// PIL's Image.resize((out_width, out_height), BICUBIC) (Pillow src/libImaging/Resample.c: two passes, 8-bit
// intermediate, coefficients scaled by 2^22). Returns out_height * out_width * 3 bytes. Memory beyond input and output:
// at most the larger of the two. The order of the passes changes single levels; it is that of Pillow 13: horizontal
// first, but vertical first where height - out_height > 2 * max(0, width - out_width) and the height shrinks. Older
// releases go horizontal first always (12.2 and 12.3: unless height > 100 * width). Cancelled, soon after `cancel` is
// set.
std::vector<uint8_t> resize_bicubic(const ImageView& image, int64_t out_width, int64_t out_height,
                                    const CancelToken* cancel = nullptr);

enum class Fit {
  Squash,  // the whole image, aspect not kept
  Pad,     // the whole image in the middle of a square of one colour (a pixel more behind it than before it)
  Crop,    // the middle: the shorter side as long as the square's, the longer one cut off at both ends
};
// An image as size * size * 3 bytes: PIL's resize (as above) of the padded image, or of the whole one before it is
// cut (transformers' centre crop: shorter side to `size`, the longer one rounded down). `colour` is the padding's.
// Memory and time do not grow with what is padded or cut off.
std::vector<uint8_t> fit_square(const ImageView& image, int64_t size, Fit fit, const std::array<uint8_t, 3>& colour,
                                const CancelToken* cancel = nullptr);

// size x size RGB bytes -> ((size/patch)^2, 3*patch*patch) float32, rows row-major over the image, columns in the
// order of a convolution kernel (channel, y, x); value = (byte / 255 - mean) / std, rounded once.
// Rows and columns of pixels beyond the last whole patch are left out, as a convolution does.
// InvalidRequest unless rgb has size * size * 3 bytes, patch is 1..size, mean is finite and std finite and positive.
std::vector<float> to_patches(const std::vector<uint8_t>& rgb, int64_t size, int64_t patch,
                              const std::array<float, 3>& mean, const std::array<float, 3>& std);

// Rows and columns of the largest grid of at most max_patches patches with the image's aspect, at least one of each;
// smaller images are enlarged (Kosmos2_5ImageProcessor.extract_flattened_patches).
struct PatchGridSize {
  int64_t rows = 0, cols = 0;
};
PatchGridSize patch_grid_size(int64_t width, int64_t height, int64_t patch, int64_t max_patches);

// The image whitened (all of its bytes to mean 0 and deviation 1), resized to the grid by antialiased linear
// interpolation and cut into patches: (rows * cols, patch * patch * 3), the values of a patch in the order (y, x,
// channel). Memory beyond the result: one line of the image. Cancelled, soon after `cancel` is set.
std::vector<float> to_patch_grid(const ImageView& image, int64_t patch, const PatchGridSize& size,
                                 const CancelToken* cancel = nullptr);

}  // namespace ke
