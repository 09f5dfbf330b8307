// The whole engine without Python: caption MODEL RGB WIDTH HEIGHT [ISA]
// Prints the token ids of the greedy answer to the picture followed by "<grounding> An image of". RGB: a file of
// height rows of width pixels of 3 bytes.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "caption MODEL RGB WIDTH HEIGHT [ISA]\n");
    return 2;
  }
  try {
    ke::LoadOptions options;
    options.backend.threads = 2;
    if (argc > 5) options.backend.isa = argv[5];
    const auto engine = ke::Engine::load(argv[1], options);
    std::ifstream file(argv[2], std::ios::binary);
    const std::vector<char> rgb((std::istreambuf_iterator<char>(file)), {});
    const ke::ImageView view{reinterpret_cast<const uint8_t*>(rgb.data()), std::atoll(argv[3]), std::atoll(argv[4])};
    if (static_cast<int64_t>(rgb.size()) != view.width * view.height * 3) {
      std::fprintf(stderr, "%s has %zu bytes\n", argv[2], rgb.size());
      return 2;
    }
    ke::Segment picture, words;
    picture.kind = ke::Segment::Kind::Image;
    picture.image = engine->encode_image(view, nullptr);
    words.kind = ke::Segment::Kind::Tags;
    words.text = "<grounding> An image of";
    ke::GenerateParams params;
    params.max_tokens = 48;
    std::fprintf(stderr, "%s\n", engine->backend().description().c_str());
    const ke::Prompt prompt = engine->prompt({picture, words});
    for (int32_t id : engine->generate(prompt, params, nullptr, nullptr).ids) std::printf("%d ", id);
    std::printf("\n");
    return 0;
  } catch (const ke::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
