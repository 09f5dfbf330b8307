// Decoded pictures: any width, height and pixels, resized and cut into patches of any size, and encoded by a small
// model; sizes outside the limits are refused before anything is allocated.
//
// Input: int64 width, height, output width, output height, patch; float32 means and deviations; the rest is repeated as
// pixels.
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "engine/engine.h"
#include "gguf_draft.h"
#include "image/image.h"
#include "memory_file.h"
#include "targets.h"

namespace fuzz {
namespace {

constexpr int64_t kMostPixels = 1 << 18;  // a valid picture of more is not computed here: that is only slow

struct Case {
  int64_t width, height, out_width, out_height, patch;
  float mean[3], deviation[3];
};

bool valid(int64_t width, int64_t height) {
  return width >= 1 && width <= 65535 && height >= 1 && height <= 65535 && width * height <= int64_t{1} << 28;
}

const ke::Engine& engine() {
  static const std::shared_ptr<ke::Engine> model = [] {
    static MemoryFile file;
    Random random(0, 0);
    file.write(valid_model(random, Sizes{}, 0).bytes());
    ke::LoadOptions options;
    options.backend.threads = 1;
    return ke::Engine::load(file.path(), options);
  }();
  return *model;
}

Outcome run(std::span<const uint8_t> input) {
  Case c{};
  std::memcpy(&c, input.data(), std::min(input.size(), sizeof c));
  const std::span<const uint8_t> pattern = input.subspan(std::min(input.size(), sizeof c));
  Outcome outcome;
  const bool in_range = valid(c.width, c.height), out_range = valid(c.out_width, c.out_height);
  if ((in_range && c.width * c.height > kMostPixels) || (out_range && c.out_width * c.out_height > kMostPixels))
    return outcome;
  Bytes rgb(in_range ? static_cast<size_t>(c.width * c.height * 3) : 3);
  for (size_t i = 0; i < rgb.size(); ++i) rgb[i] = pattern.empty() ? 0 : pattern[i % pattern.size()];
  try {
    const std::vector<uint8_t> out = ke::resize_bicubic({rgb.data(), c.width, c.height}, c.out_width, c.out_height);
    if (!in_range || !out_range) broken("a size outside of the limits was resized");
    if (out.size() != static_cast<size_t>(c.out_width * c.out_height * 3)) broken("resized to another size");
    outcome.accepted = true;
    const std::vector<float> patches = ke::to_patches(out, c.out_width, c.patch, {c.mean[0], c.mean[1], c.mean[2]},
                                                      {c.deviation[0], c.deviation[1], c.deviation[2]});
    const int64_t covered = c.out_width / c.patch * c.patch;
    if (patches.size() != static_cast<size_t>(covered * covered * 3)) broken("patches lose pixels");
  } catch (const ke::Error& e) {
    if (e.code() != ke::ErrorCode::InvalidRequest) broken(std::string("image: ") + e.what());
    outcome.error = e.what();
  }
  if (in_range) {
    const auto picture = engine().encode_image({rgb.data(), c.width, c.height}, nullptr);
    for (float x : picture->features->save())
      if (!std::isfinite(x)) broken("a picture became a number that is not finite");
    outcome.accepted = outcome.captioned = true;
  }
  return outcome;
}

int64_t side(Random& random) {
  switch (random.below(8)) {
    case 0:
      return static_cast<int64_t>(random.nasty());
    case 1:
      return random.pick<int64_t>({65535, 65536, 65534, -1, 0, 1 << 14, (1 << 14) + 1});
    case 2:
      return random.pick<int64_t>({400, 800, 224, 449, 997, 1009});
    default:
      return 1 + static_cast<int64_t>(random.below(40));
  }
}

Bytes make(Random& random) {
  Case c{};
  c.width = side(random), c.height = side(random);
  if (random.chance(6)) c.width = 1;
  c.out_width = random.chance(3) ? side(random) : static_cast<int64_t>(1 + random.below(60));
  c.out_height = random.chance(2) ? c.out_width : side(random);
  c.patch = random.chance(4) ? side(random) : random.pick<int64_t>({1, 2, 7, 14, c.out_width});
  for (float& x : c.mean) x = random.chance(8) ? random.nasty_float() : 0.5f;
  for (float& x : c.deviation) x = random.chance(8) ? random.nasty_float() : 0.25f;
  Bytes out(sizeof c + random.below(64));
  for (uint8_t& b : out) b = random.pick<uint8_t>({0, 255, static_cast<uint8_t>(random.next())});
  std::memcpy(out.data(), &c, sizeof c);
  return out;
}

}  // namespace

const Target image_target = {"image", make, run};

}  // namespace fuzz

KE_FUZZ_ENTRY(fuzz::image_target)
