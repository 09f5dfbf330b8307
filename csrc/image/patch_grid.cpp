// An image of any shape as patches of a grid that keeps its aspect.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "image/image.h"

namespace ke {
namespace {

constexpr int64_t kChannels = 3;
constexpr int64_t kRowsPerPoll = 16;

// For each output position: the inputs that it averages and their weights, which sum to 1. Linear interpolation, or
// when shrinking the triangle as wide as an output pixel (torch's upsample_bilinear2d_aa, align_corners=False).
struct Taps {
  std::vector<int64_t> first;  // (out)
  std::vector<std::vector<float>> weights;
};

Taps make_taps(int64_t in, int64_t out) {
  const double scale = static_cast<double>(in) / static_cast<double>(out), support = std::max(scale, 1.0);
  Taps taps;
  for (int64_t i = 0; i < out; ++i) {
    const double center = scale * (static_cast<double>(i) + 0.5);
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const int64_t end = std::min(static_cast<int64_t>(center + support + 0.5), in);
    std::vector<double> exact;
    double sum = 0;
    for (int64_t j = first; j < end; ++j) {
      const double distance = std::fabs((static_cast<double>(j) - center + 0.5) / support);
      exact.push_back(std::max(0.0, 1.0 - distance));
      sum += exact.back();
    }
    std::vector<float> weights;
    for (double w : exact) weights.push_back(static_cast<float>(w / sum));
    taps.first.push_back(first);
    taps.weights.push_back(std::move(weights));
  }
  return taps;
}

// Of all bytes together: mean, and the population's standard deviation, but at least 1 / sqrt(count).
struct Whitening {
  double mean, deviation;
};

Whitening measure(const ImageView& image, const CancelToken* cancel) {
  const int64_t line = image.width * kChannels, count = image.height * line;
  uint64_t sum = 0, squares = 0;  // at most 2^28 * 3 * 255^2: far below 2^64
  for (int64_t y = 0; y < image.height; ++y) {
    if (cancel && y % kRowsPerPoll == 0) cancel->check();
    const uint8_t* bytes = image.rgb + y * line;
    for (int64_t i = 0; i < line; ++i) {
      sum += bytes[i];
      squares += static_cast<uint64_t>(bytes[i]) * bytes[i];
    }
  }
  const double n = static_cast<double>(count), mean = static_cast<double>(sum) / n;
  const double variance = std::max(0.0, static_cast<double>(squares) / n - mean * mean);
  return {mean, std::max(std::sqrt(variance), 1.0 / std::sqrt(n))};
}

}  // namespace

PatchGridSize patch_grid_size(int64_t width, int64_t height, int64_t patch, int64_t max_patches) {
  check_image_size(width, height, "a picture");
  KE_CHECK(patch >= 1 && max_patches >= 1, InvalidRequest, "patches of side ", patch, ", at most ", max_patches);
  const double p = static_cast<double>(patch), h = static_cast<double>(height), w = static_cast<double>(width);
  const double scale = std::sqrt(static_cast<double>(max_patches) * (p / h) * (p / w));
  const auto fit = [&](double side) {
    return std::clamp<int64_t>(static_cast<int64_t>(std::floor(scale * side / p)), 1, max_patches);
  };
  return {fit(h), fit(w)};
}

std::vector<float> to_patch_grid(const ImageView& image, int64_t patch, const PatchGridSize& size,
                                 const CancelToken* cancel) {
  check_image_size(image.width, image.height, "a picture");
  KE_CHECK(image.rgb != nullptr, InvalidRequest, "a picture without pixels");
  const int64_t width = size.cols * patch, height = size.rows * patch, line = image.width * kChannels;
  const Whitening whitening = measure(image, cancel);
  const Taps across = make_taps(image.width, width), down = make_taps(image.height, height);
  std::vector<float> out(static_cast<size_t>(height * width * kChannels)), sums(static_cast<size_t>(line));
  // The weights of an output pixel sum to 1, so whitening the sums is whitening the image before it is resized.
  const auto factor = static_cast<float>(1.0 / whitening.deviation);
  const auto offset = static_cast<float>(-whitening.mean / whitening.deviation);
  for (int64_t y = 0; y < height; ++y) {
    if (cancel) cancel->check();
    std::fill(sums.begin(), sums.end(), 0.0f);
    const std::vector<float>& rows = down.weights[static_cast<size_t>(y)];
    const uint8_t* bytes = image.rgb + down.first[static_cast<size_t>(y)] * line;
    for (size_t k = 0; k < rows.size(); ++k, bytes += line)
      for (int64_t i = 0; i < line; ++i) sums[static_cast<size_t>(i)] += rows[k] * static_cast<float>(bytes[i]);
    for (int64_t x = 0; x < width; ++x) {
      const std::vector<float>& columns = across.weights[static_cast<size_t>(x)];
      const float* pixel = sums.data() + across.first[static_cast<size_t>(x)] * kChannels;
      float rgb[kChannels] = {};
      for (size_t k = 0; k < columns.size(); ++k)
        for (int64_t c = 0; c < kChannels; ++c) rgb[c] += columns[k] * pixel[static_cast<int64_t>(k) * kChannels + c];
      const int64_t cell = y / patch * size.cols + x / patch;
      float* to = out.data() + ((cell * patch + y % patch) * patch + x % patch) * kChannels;
      for (int64_t c = 0; c < kChannels; ++c) to[c] = rgb[c] * factor + offset;
    }
  }
  return out;
}

}  // namespace ke
