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

// One direction of an image that is resized from `in` to `out` pixels. Of the result only some pixels are wanted; of
// the image only some are stored, and the others have one colour.
struct Axis {
  int64_t in = 0, out = 0;
  int64_t begin = 0, count = 0;          // wanted
  int64_t first_stored = 0, stored = 0;  // of the image

  static Axis whole(int64_t in, int64_t out) { return {in, out, 0, out, 0, in}; }
  bool keeps() const { return in == out && count == out && stored == in; }  // the result is the image
};

using Colour = std::array<uint8_t, 3>;

// For each wanted pixel: the range of stored pixels that it averages, their fixed-point weights, and the weight of
// those that are not stored.
struct Taps {
  int64_t stride = 0;            // weights per wanted pixel; those beyond count are zero
  std::vector<int32_t> first;    // (wanted)
  std::vector<int32_t> count;    // (wanted)
  std::vector<int32_t> colour;   // (wanted)
  std::vector<int32_t> weights;  // (wanted, stride)
  int64_t size() const { return static_cast<int64_t>(first.size()); }
};

Taps make_taps(const Axis& axis) {
  const double scale = static_cast<double>(axis.in) / static_cast<double>(axis.out);
  const double filter_scale = std::max(scale, 1.0);
  const double support = 2.0 * filter_scale;
  const double inverse = 1.0 / filter_scale;
  Taps taps;
  taps.stride = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  taps.first.resize(static_cast<size_t>(axis.count));
  taps.count.resize(static_cast<size_t>(axis.count));
  taps.colour.resize(static_cast<size_t>(axis.count));
  taps.weights.assign(static_cast<size_t>(axis.count * taps.stride), 0);
  std::vector<double> exact(static_cast<size_t>(taps.stride));
  const auto stored = [&](int64_t i) { return std::clamp<int64_t>(i - axis.first_stored, 0, axis.stored); };
  for (int64_t i = 0; i < axis.count; ++i) {
    const double center = (static_cast<double>(axis.begin + i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const int64_t count = std::min(static_cast<int64_t>(center + support + 0.5), axis.in) - first;
    double sum = 0.0;
    for (int64_t k = 0; k < count; ++k) {
      const double w = bicubic((static_cast<double>(k + first) - center + 0.5) * inverse);
      exact[static_cast<size_t>(k)] = w;
      sum += w;
    }
    const int64_t from = stored(first), end = stored(first + count);
    int32_t* weights = taps.weights.data() + i * taps.stride;
    int32_t& colour = taps.colour[static_cast<size_t>(i)];
    for (int64_t k = 0; k < count; ++k) {
      double w = exact[static_cast<size_t>(k)];
      if (sum != 0.0) w /= sum;
      const int32_t fixed = static_cast<int32_t>((w < 0 ? -0.5 : 0.5) + w * (1 << kWeightBits));
      const int64_t at = first + k - axis.first_stored;
      if (at >= from && at < end)
        weights[at - from] = fixed;
      else
        colour += fixed;
    }
    taps.first[static_cast<size_t>(i)] = static_cast<int32_t>(from);
    taps.count[static_cast<size_t>(i)] = static_cast<int32_t>(end - from);
  }
  return taps;
}

uint8_t to_byte(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255)); }

// in: rows x in_width pixels -> out: rows x taps.size() pixels
void resize_rows(const uint8_t* in, int64_t rows, int64_t in_width, const Taps& taps, const Colour& colour,
                 uint8_t* out, const CancelToken* cancel) {
  for (int64_t y = 0; y < rows; ++y) {
    if (cancel && y % kRowsPerPoll == 0) cancel->check();
    const uint8_t* line = in + y * in_width * kChannels;
    for (int64_t x = 0; x < taps.size(); ++x) {
      const int32_t* weights = taps.weights.data() + x * taps.stride;
      const uint8_t* pixel = line + taps.first[static_cast<size_t>(x)] * kChannels;
      const int32_t around = taps.colour[static_cast<size_t>(x)];
      int32_t red = kHalf + around * colour[0];
      int32_t green = kHalf + around * colour[1];
      int32_t blue = kHalf + around * colour[2];
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

// in: the rows from first_row on of an image `width` pixels wide -> out: taps.size() x width pixels
void resize_columns(const uint8_t* in, int64_t first_row, const Taps& taps, int64_t width, const Colour& colour,
                    uint8_t* out, const CancelToken* cancel) {
  const int64_t row_bytes = width * kChannels;
  std::vector<int32_t> sums(static_cast<size_t>(row_bytes));
  for (int64_t y = 0; y < taps.size(); ++y) {
    if (cancel) cancel->check();
    const int32_t* weights = taps.weights.data() + y * taps.stride;
    const uint8_t* row = in + (taps.first[static_cast<size_t>(y)] - first_row) * row_bytes;
    const int32_t around = taps.colour[static_cast<size_t>(y)];
    for (int64_t i = 0; i < row_bytes; i += kChannels)
      for (int64_t c = 0; c < kChannels; ++c)
        sums[static_cast<size_t>(i + c)] = kHalf + around * colour[static_cast<size_t>(c)];
    for (int32_t k = 0; k < taps.count[static_cast<size_t>(y)]; ++k, row += row_bytes) {
      const int32_t weight = weights[k];
      for (int64_t i = 0; i < row_bytes; ++i) sums[static_cast<size_t>(i)] += row[i] * weight;
    }
    for (int64_t i = 0; i < row_bytes; ++i) *out++ = to_byte(sums[static_cast<size_t>(i)]);
  }
}

// The wanted pixels of both axes; what is not stored has this colour.
std::vector<uint8_t> resize_axes(const ImageView& image, const Axis& across, const Axis& down, const Colour& colour,
                                 const CancelToken* cancel) {
  const int64_t width = image.width, height = image.height;
  const bool vertical_first =
      down.out < down.in && down.in - down.out > 2 * std::max<int64_t>(0, across.in - across.out);
  const auto bytes = [](int64_t w, int64_t h) { return static_cast<size_t>(w * h * kChannels); };
  std::vector<uint8_t> out(bytes(across.count, down.count));
  if (across.keeps() && down.keeps()) {
    std::memcpy(out.data(), image.rgb, out.size());
  } else if (across.keeps()) {
    resize_columns(image.rgb, 0, make_taps(down), width, colour, out.data(), cancel);
  } else if (down.keeps()) {
    resize_rows(image.rgb, height, width, make_taps(across), colour, out.data(), cancel);
  } else if (vertical_first) {
    std::vector<uint8_t> between(bytes(width, down.count));
    resize_columns(image.rgb, 0, make_taps(down), width, colour, between.data(), cancel);
    resize_rows(between.data(), down.count, width, make_taps(across), colour, out.data(), cancel);
  } else {
    // The vertical pass may leave rows at both ends unread.
    const Taps taps = make_taps(down);
    const int64_t first_row = taps.first.front();
    const int64_t rows = taps.first.back() + taps.count.back() - first_row;
    std::vector<uint8_t> between(bytes(across.count, rows));
    resize_rows(image.rgb + first_row * width * kChannels, rows, width, make_taps(across), colour, between.data(),
                cancel);
    resize_columns(between.data(), first_row, taps, across.count, colour, out.data(), cancel);
  }
  return out;
}

void check_resize(const ImageView& image, int64_t out_width, int64_t out_height) {
  check_image_size(image.width, image.height, "a picture");
  check_image_size(out_width, out_height, "a resized picture");
  KE_CHECK(image.rgb != nullptr, InvalidRequest, "a picture without pixels");
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
  check_resize(image, out_width, out_height);
  return resize_axes(image, Axis::whole(image.width, out_width), Axis::whole(image.height, out_height), {}, cancel);
}

std::vector<uint8_t> fit_square(const ImageView& image, int64_t size, Fit fit, const std::array<uint8_t, 3>& colour,
                                const CancelToken* cancel) {
  check_resize(image, size, size);
  const int64_t longer = std::max(image.width, image.height), shorter = std::min(image.width, image.height);
  const auto axis = [&](int64_t side) -> Axis {
    switch (fit) {
      case Fit::Pad:
        return {longer, size, 0, size, (longer - side) / 2, side};
      case Fit::Crop: {
        const int64_t out = size * side / shorter;
        return {side, out, (out - size) / 2, size, 0, side};
      }
      case Fit::Squash:
        break;
    }
    return Axis::whole(side, size);
  };
  return resize_axes(image, axis(image.width), axis(image.height), colour, cancel);
}

}  // namespace ke
