// Memory that the system refuses, once for every request: refusals MODEL [STRIDE=1] [THREADS=1] [FIRST=1]
// Counts the requests for memory (operator new, malloc and its kin, mmap) while a model is opened, encodes a picture,
// captions it, searches with beams, ranks texts; then does it all again with the n-th refused, for n = FIRST,
// FIRST + STRIDE, ..., twice: only that one, and all from that one on. Every time the call that met the refusal must
// fail with KOSMOS_ERROR_OUT_OF_MEMORY (or IO, where the file could not be mapped) and give no object, or succeed
// without that memory; the same call repeated with memory must work; the answers must be those of an undisturbed run;
// and after everything is freed no block, mapping or descriptor is left. Prints one line and exits with 0, or says on
// stderr what was wrong and exits with 1. Under AddressSanitizer the allocator is the sanitizer's: there malloc is
// refused to operator new only, and leaks are the sanitizer's to find.
#include <dirent.h>
#include <dlfcn.h>
#include <kosmos.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

// ---- the memory that is refused

std::atomic<long> requests{0}, first_refused{0}, last_refused{0}, refused{0};
std::atomic<long> blocks{0}, mapped_bytes{0};
std::atomic<bool> armed{false};

bool refuse() {
  if (!armed.load(std::memory_order_relaxed)) return false;
  const long n = ++requests;
  const bool no = n >= first_refused && n <= last_refused;
  if (no) {
    ++refused;
    errno = ENOMEM;
  }
  return no;
}

void arm(long first, long last) {
  requests = refused = 0;
  first_refused = first;
  last_refused = last;
  armed = true;
}

void disarm() { armed = false; }

}  // namespace

#if defined(__SANITIZE_ADDRESS__)
static void* real_malloc(size_t bytes) { return std::malloc(bytes); }
static void* real_aligned(size_t align, size_t bytes) {
  void* p = nullptr;
  return posix_memalign(&p, align, bytes) == 0 ? p : nullptr;
}
static void real_free(void* p) { std::free(p); }
#else
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

static void* counted(void* p) {
  if (p) ++blocks;
  return p;
}
static void* real_malloc(size_t bytes) { return counted(__libc_malloc(bytes)); }
static void* real_aligned(size_t align, size_t bytes) { return counted(__libc_memalign(align, bytes)); }
static void real_free(void* p) {
  if (p) --blocks;
  __libc_free(p);
}

void* malloc(size_t bytes) { return refuse() ? nullptr : real_malloc(bytes); }
void* calloc(size_t n, size_t bytes) { return refuse() ? nullptr : counted(__libc_calloc(n, bytes)); }
void* realloc(void* p, size_t bytes) {
  if (refuse()) return nullptr;
  void* moved = __libc_realloc(p, bytes);
  if (!p && moved) ++blocks;
  if (p && !moved && bytes == 0) --blocks;
  return moved;
}
void free(void* p) { real_free(p); }
int posix_memalign(void** out, size_t align, size_t bytes) {
  if (refuse()) return ENOMEM;
  *out = real_aligned(align, bytes);
  return *out ? 0 : ENOMEM;
}
void* memalign(size_t align, size_t bytes) { return refuse() ? nullptr : real_aligned(align, bytes); }
}
#endif

extern "C" {
void* aligned_alloc(size_t align, size_t bytes) { return refuse() ? nullptr : real_aligned(align, bytes); }

void* mmap(void* at, size_t bytes, int protection, int flags, int fd, off_t offset) noexcept {
  if (refuse()) return MAP_FAILED;
  void* p = reinterpret_cast<void*>(syscall(SYS_mmap, at, bytes, protection, flags, fd, offset));
  if (p != MAP_FAILED) mapped_bytes += static_cast<long>((bytes + 4095) / 4096 * 4096);
  return p;
}
int munmap(void* p, size_t bytes) noexcept {
  mapped_bytes -= static_cast<long>((bytes + 4095) / 4096 * 4096);
  return static_cast<int>(syscall(SYS_munmap, p, bytes));
}
}

void* operator new(size_t bytes) {
  void* p = refuse() ? nullptr : real_malloc(bytes ? bytes : 1);
  return p ? p : throw std::bad_alloc();
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  return refuse() ? nullptr : real_malloc(bytes ? bytes : 1);
}
void* operator new(size_t bytes, std::align_val_t align) {
  void* p = refuse() ? nullptr : real_aligned(std::max(static_cast<size_t>(align), sizeof(void*)), bytes);
  return p ? p : throw std::bad_alloc();
}
void* operator new[](size_t bytes) { return operator new(bytes); }
void* operator new[](size_t bytes, std::align_val_t align) { return operator new(bytes, align); }
void* operator new[](size_t bytes, const std::nothrow_t& t) noexcept { return operator new(bytes, t); }
void operator delete(void* p) noexcept { real_free(p); }
void operator delete[](void* p) noexcept { real_free(p); }
void operator delete(void* p, size_t) noexcept { real_free(p); }
void operator delete[](void* p, size_t) noexcept { real_free(p); }
void operator delete(void* p, std::align_val_t) noexcept { real_free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { real_free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { real_free(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { real_free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { real_free(p); }

// ---- what is done while it is refused

namespace {

const char* model_path;
int threads = 1;
long current = 0;  // the request that is refused
const char* mode = "none";

[[noreturn]] void wrong(const char* what, const char* call, kosmos_status status = 0, const char* message = "") {
  disarm();
  std::fprintf(stderr, "refusals: %s (%s, request %ld refused, %s): %s %s\n", what, call, current, mode,
               kosmos_status_name(status), message);
  std::_Exit(1);
}

struct Tally {
  long refusals = 0, errors = 0, absorbed = 0;
} tally;

// Makes a call until it works: with the memory that is refused, then without refusals.
template <class Handle, class Call>
Handle* made(const char* name, const Call& call) {
  for (int attempt = 0; attempt < 2; attempt++) {
    Handle* out = nullptr;
    kosmos_error* error = nullptr;
    const long before = refused;
    const kosmos_status status = call(&out, &error);
    const bool met = refused > before;
    tally.refusals += met;
    if (status == KOSMOS_OK) {
      if (!out || error) wrong("success without an object, or with an error", name);
      tally.absorbed += met;
      return out;
    }
    const bool typed = status == KOSMOS_ERROR_OUT_OF_MEMORY || status == KOSMOS_ERROR_IO;
    if (!met || !typed) wrong("an error that is not about memory", name, status, kosmos_error_message(error));
    if (out || kosmos_error_code(error) != status || kosmos_error_message(error)[0] == 0)
      wrong("an object beside an error, or no message", name, status);
    kosmos_error_free(error);
    tally.errors++;
    disarm();
  }
  wrong("does not work when there is memory again", name);
}

struct Answer {
  int32_t ids[64];
  size_t count = 0, entities = 0;
  double score = 0;
  bool operator==(const Answer& o) const {
    return count == o.count && entities == o.entities && std::memcmp(ids, o.ids, count * sizeof *ids) == 0 &&
           score == o.score;
  }
};

void read(const kosmos_result* result, Answer& answer) {
  kosmos_result_info info = KOSMOS_INIT(kosmos_result_info);
  if (kosmos_result_get(result, &info, nullptr) != KOSMOS_OK) wrong("an answer cannot be read", "result_get");
  for (size_t i = 0; i < info.token_count && answer.count < 64; i++) answer.ids[answer.count++] = info.token_ids[i];
  answer.entities += info.entity_count;
}

int32_t on_event(const kosmos_event*, void*) { return 0; }
void on_log(int32_t, const char*, void*) {}

Answer scenario() {
  static uint8_t pixels[48 * 40 * 3];
  for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = static_cast<uint8_t>(i * 7 + i / 48);
  Answer answer;
  auto* model = made<kosmos_model>("model_load", [](auto** out, auto** error) {
    kosmos_load_options o = KOSMOS_INIT(kosmos_load_options);
    o.threads = threads;
    o.on_log = on_log;
    return kosmos_model_load(model_path, &o, out, error);
  });
  auto* image = made<kosmos_image>("image_encode", [&](auto** out, auto** error) {
    kosmos_picture p = KOSMOS_INIT(kosmos_picture);
    p.pixels = pixels, p.width = 48, p.height = 40;
    return kosmos_image_encode(model, &p, nullptr, out, error);
  });
  kosmos_options options = KOSMOS_INIT(kosmos_options);
  options.max_tokens = 6;
  options.ground = KOSMOS_ON;
  options.logprobs = KOSMOS_ON;
  options.on_event = on_event;
  auto* caption = made<kosmos_result>(
      "caption", [&](auto** out, auto** error) { return kosmos_caption(model, image, &options, out, error); });
  kosmos_options beams = KOSMOS_INIT(kosmos_options);
  beams.max_tokens = 3;
  beams.num_beams = 2;
  auto* searched = made<kosmos_result>(
      "caption, beams", [&](auto** out, auto** error) { return kosmos_caption(model, image, &beams, out, error); });
  const char* const texts[] = {"a dog", "b"};
  auto* ranking = made<kosmos_ranking>(
      "score", [&](auto** out, auto** error) { return kosmos_score(model, image, texts, 2, nullptr, out, error); });
  disarm();
  read(caption, answer);
  read(searched, answer);
  kosmos_score_info info = KOSMOS_INIT(kosmos_score_info);
  if (kosmos_ranking_get(ranking, 0, &info, nullptr) != KOSMOS_OK) wrong("a ranking cannot be read", "ranking_get");
  answer.score = info.score;
  kosmos_ranking_free(ranking);
  kosmos_result_free(searched);
  kosmos_result_free(caption);
  kosmos_image_free(image);
  kosmos_model_free(model);
  return answer;
}

int descriptors() {
  DIR* folder = opendir("/proc/self/fd");
  int count = 0;
  while (folder && readdir(folder)) count++;
  if (folder) closedir(folder);
  return count;
}

}  // namespace

int main(int argc, char** argv) {
  const long stride = argc > 2 ? std::atol(argv[2]) : 1;
  if (argc < 2 || stride < 1) {
    std::fprintf(stderr, "refusals MODEL [STRIDE=1] [THREADS=1] [FIRST=1]\n");
    return 2;
  }
  model_path = argv[1];
  if (argc > 3) threads = std::atoi(argv[3]);
  const long first = argc > 4 ? std::atol(argv[4]) : 1;

  scenario();
  const Answer good = scenario();  // the first one also pays for what is made once per process
  arm(0, -1);
  if (!(scenario() == good)) wrong("two undisturbed runs differ", "all");
  const long total = requests;
  const long blocks_before = blocks, mapped_before = mapped_bytes;
  const int descriptors_before = descriptors();
  long runs = 0;
  for (long n = first; n <= total; n += stride) {
    current = n;
    for (const bool all : {false, true}) {
      mode = all ? "and all after it" : "alone";
      arm(n, all ? INT64_MAX : n);
      if (!(scenario() == good)) wrong("another answer than that of an undisturbed run", "all");
      if (mapped_bytes != mapped_before || descriptors() != descriptors_before)
        wrong("a mapping or a descriptor is left", "all");
      runs++;
    }
  }
  // Tables of the process may have grown by a block or two; a leak would be one per run.
  if (blocks - blocks_before > 8) wrong("blocks are left", "all");
  std::printf("requests %ld, runs %ld, refusals %ld, errors %ld, absorbed %ld, blocks left %ld\n", total, runs,
              tally.refusals, tally.errors, tally.absorbed, blocks - blocks_before);
  return 0;
}
