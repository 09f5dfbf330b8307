// Bicubic resizing with antialiasing, the same integers as Pillow's Resample.c: each output pixel is a weighted sum
// over 2 * support input pixels, support = 2 * max(1, input / output), first along one axis, then along the other.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/limits.h"
#include "image/image.h"

namespace ke {

namespace {

constexpr int kWeightBits = 32 - 8 - 2;  // an int32 sum of byte * weight with room for the negative lobes
constexpr int32_t kHalf = 1 << (kWeightBits - 1);
constexpr int64_t kChannels = 3;
constexpr int64_t kRowsPerPoll = 16;  // of the horizontal pass: at most 65535 pixels wide, some milliseconds

// The cubic convolution kernel with a = -0.5 (Keys 1981), in Pillow's order of operations.
double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

// For each output position: the input range that it averages and its fixed-point weights.
struct Taps {
  int64_t stride = 0;            // weights per output position; those beyond count are zero
  std::vector<int32_t> first;    // (out)
  std::vector<int32_t> count;    // (out)
  std::vector<int32_t> weights;  // (out, stride)
};

Taps make_taps(int64_t in, int64_t out) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double filter_scale = std::max(scale, 1.0);
  const double support = 2.0 * filter_scale;
  const double inverse = 1.0 / filter_scale;
  Taps taps;
  taps.stride = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  taps.first.resize(static_cast<size_t>(out));
  taps.count.resize(static_cast<size_t>(out));
  taps.weights.assign(static_cast<size_t>(out * taps.stride), 0);
  std::vector<double> exact(static_cast<size_t>(taps.stride));
  for (int64_t i = 0; i < out; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const int64_t count = std::min(static_cast<int64_t>(center + support + 0.5), in) - first;
    double sum = 0.0;
    for (int64_t k = 0; k < count; ++k) {
      const double w = bicubic((static_cast<double>(k + first) - center + 0.5) * inverse);
      exact[static_cast<size_t>(k)] = w;
      sum += w;
    }
    int32_t* weights = taps.weights.data() + i * taps.stride;
    for (int64_t k = 0; k < count; ++k) {
      double w = exact[static_cast<size_t>(k)];
      if (sum != 0.0) w /= sum;
      weights[k] = static_cast<int32_t>((w < 0 ? -0.5 : 0.5) + w * (1 << kWeightBits));
    }
    taps.first[static_cast<size_t>(i)] = static_cast<int32_t>(first);
    taps.count[static_cast<size_t>(i)] = static_cast<int32_t>(count);
  }
  return taps;
}

uint8_t to_byte(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255)); }

// in: rows x in_width pixels -> out: rows x out_width pixels
void resize_rows(const uint8_t* in, int64_t rows, int64_t in_width, uint8_t* out, int64_t out_width,
                 const CancelToken* cancel) {
  const Taps taps = make_taps(in_width, out_width);
  for (int64_t y = 0; y < rows; ++y) {
    if (cancel && y % kRowsPerPoll == 0) cancel->check();
    const uint8_t* line = in + y * in_width * kChannels;
    for (int64_t x = 0; x < out_width; ++x) {
      const int32_t* weights = taps.weights.data() + x * taps.stride;
      const uint8_t* pixel = line + taps.first[static_cast<size_t>(x)] * kChannels;
      int32_t red = kHalf, green = kHalf, blue = kHalf;
      for (int32_t k = 0; k < taps.count[static_cast<size_t>(x)]; ++k, pixel += kChannels) {
        red += pixel[0] * weights[k];
        green += pixel[1] * weights[k];
        blue += pixel[2] * weights[k];
      }
      *out++ = to_byte(red);
      *out++ = to_byte(green);
      *out++ = to_byte(blue);
    }
  }
}

// in: the rows from first_row on of a picture of in_height rows of `width` pixels -> out: out_height x width pixels
void resize_columns(const uint8_t* in, int64_t first_row, const Taps& taps, int64_t width, uint8_t* out,
                    int64_t out_height, const CancelToken* cancel) {
  const int64_t row_bytes = width * kChannels;
  std::vector<int32_t> sums(static_cast<size_t>(row_bytes));
  for (int64_t y = 0; y < out_height; ++y) {
    if (cancel) cancel->check();
    const int32_t* weights = taps.weights.data() + y * taps.stride;
    const uint8_t* row = in + (taps.first[static_cast<size_t>(y)] - first_row) * row_bytes;
    std::fill(sums.begin(), sums.end(), kHalf);
    for (int32_t k = 0; k < taps.count[static_cast<size_t>(y)]; ++k, row += row_bytes) {
      const int32_t weight = weights[k];
      for (int64_t i = 0; i < row_bytes; ++i) sums[static_cast<size_t>(i)] += row[i] * weight;
    }
    for (int64_t i = 0; i < row_bytes; ++i) *out++ = to_byte(sums[static_cast<size_t>(i)]);
  }
}

}  // namespace

void check_image_size(int64_t width, int64_t height, const char* what) {
  using limits::kMaxImagePixels, limits::kMaxImageSide;
  const auto is_side = [](int64_t n) { return n >= 1 && n <= kMaxImageSide; };
  KE_CHECK(is_side(width) && is_side(height) && width * height <= kMaxImagePixels, InvalidRequest, what, " of ", width,
           " x ", height, " pixels: each side may be 1 to ", kMaxImageSide, " and the area at most ", kMaxImagePixels);
}

std::vector<uint8_t> resize_bicubic(const ImageView& image, int64_t out_width, int64_t out_height,
                                    const CancelToken* cancel) {
  const int64_t width = image.width, height = image.height;
  check_image_size(width, height, "a picture");
  check_image_size(out_width, out_height, "a resized picture");
  KE_CHECK(image.rgb != nullptr, InvalidRequest, "a picture without pixels");
  const bool vertical_first = out_height < height && height - out_height > 2 * std::max<int64_t>(0, width - out_width);
  const auto bytes = [](int64_t w, int64_t h) { return static_cast<size_t>(w * h * kChannels); };
  std::vector<uint8_t> out(bytes(out_width, out_height));
  if (width == out_width && height == out_height) {
    std::memcpy(out.data(), image.rgb, out.size());
  } else if (width == out_width) {
    resize_columns(image.rgb, 0, make_taps(height, out_height), width, out.data(), out_height, cancel);
  } else if (height == out_height) {
    resize_rows(image.rgb, height, width, out.data(), out_width, cancel);
  } else if (vertical_first) {
    std::vector<uint8_t> between(bytes(width, out_height));
    resize_columns(image.rgb, 0, make_taps(height, out_height), width, between.data(), out_height, cancel);
    resize_rows(between.data(), out_height, width, out.data(), out_width, cancel);
  } else {
    // The vertical pass may leave rows at both ends unread.
    const Taps taps = make_taps(height, out_height);
    const int64_t first_row = taps.first.front();
    const int64_t rows = taps.first.back() + taps.count.back() - first_row;
    std::vector<uint8_t> between(bytes(out_width, rows));
    resize_rows(image.rgb + first_row * width * kChannels, rows, width, between.data(), out_width, cancel);
    resize_columns(between.data(), first_row, taps, out_width, out.data(), out_height, cancel);
  }
  return out;
}

}  // namespace ke
