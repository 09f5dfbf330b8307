// Times the vision tower of llama.cpp: `mtmd_encode LLM.gguf VISION.gguf THREADS [gpu | SIDE]` loads, prints
// {"ready": ...}, then answers every line on stdin (the number of repeats) with {"ms": [...]}: encodings of one random
// picture of SIDE x SIDE pixels (224) by libmtmd.
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "llama.h"
#include "mtmd.h"

static void only_errors(enum ggml_log_level level, const char* text, void*) {
  if (level >= GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static int fail(const char* what) {
  fprintf(stderr, "mtmd_encode: %s\n", what);
  return 1;
}

int main(int argc, char** argv) {
  const bool gpu = argc == 5 && !strcmp(argv[4], "gpu");
  const int side = argc == 5 && !gpu ? atoi(argv[4]) : 224;
  if ((argc != 4 && argc != 5) || side < 1) return fail("expected LLM.gguf VISION.gguf THREADS [gpu | SIDE]");
  llama_log_set(only_errors, nullptr);
  mtmd_log_set(only_errors, nullptr);
  llama_backend_init();
  llama_model_params model_params = llama_model_default_params();
  model_params.progress_callback = [](float, void*) { return true; };  // or it prints dots
  model_params.use_extra_bufts = false;  // the language model is only asked for its width: no copy of its weights
  llama_model* model = llama_model_load_from_file(argv[1], model_params);
  if (!model) return fail("cannot load the language model");
  mtmd_context_params params = mtmd_context_params_default();
  params.use_gpu = gpu;
  params.print_timings = false;
  params.n_threads = atoi(argv[3]);
  params.warmup = true;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_AUTO;
  mtmd_context* context = mtmd_init_from_file(argv[2], model, params);
  if (!context) return fail("cannot load the vision tower");

  std::vector<unsigned char> pixels(static_cast<size_t>(side) * side * 3);
  for (unsigned char& value : pixels) value = static_cast<unsigned char>(rand());
  mtmd_bitmap* bitmap = mtmd_bitmap_init(side, side, pixels.data());
  const mtmd_bitmap* bitmaps[1] = {bitmap};
  mtmd_input_text text{};
  text.text = mtmd_get_marker(context);
  text.text_len = strlen(text.text);
  text.add_special = text.parse_special = true;
  mtmd_input_chunks* chunks = mtmd_input_chunks_init();
  if (mtmd_tokenize(context, chunks, &text, bitmaps, 1)) return fail("cannot make a prompt of the picture");
  const mtmd_input_chunk* image = nullptr;
  for (size_t i = 0; i < mtmd_input_chunks_size(chunks); ++i) {
    const mtmd_input_chunk* chunk = mtmd_input_chunks_get(chunks, i);
    if (mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_IMAGE) image = chunk;
  }
  if (!image) return fail("the prompt has no picture");
  printf("{\"ready\": true, \"tokens\": %zu}\n", mtmd_input_chunk_get_n_tokens(image));
  fflush(stdout);

  char line[64];
  while (fgets(line, sizeof line, stdin)) {
    const int repeats = atoi(line);
    printf("{\"ms\": [");
    for (int i = 0; i < repeats; ++i) {
      const auto start = std::chrono::steady_clock::now();
      if (mtmd_encode_chunk(context, image)) return fail("encoding failed");
      const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
      printf("%s%.3f", i ? ", " : "", ms);
    }
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("], \"peak_rss\": %ld}\n", usage.ru_maxrss * 1024);
    fflush(stdout);
  }
  fflush(stdout);
  _Exit(0);
}
