// Files of shared weights (csrc/cpu/shared_panels.h), without a model around them: shared_weights FOLDER
// FOLDER is empty and the program's own. A small GGUF file is uploaded in every state that a folder can be in: nothing
// there, a file of an earlier load, four processes at once, a maker that was killed, damaged, truncated and foreign
// files, a limit on file sizes. Every time the panels are those of an upload without sharing. At the end headers and
// tables are mutated, with a checksum that fits. Prints one line and exits with 0, or says what was wrong and exits 1.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "backend/backend.h"
#include "base/error.h"
#include "cpu/known_digests.h"
#include "cpu/shared_panels.h"
#include "cpu/upload.h"
#include "format/gguf.h"

namespace fs = std::filesystem;
using namespace ke;
using namespace ke::cpu;

namespace {

#define CHECK(ok, ...)                                                                                                 \
  do {                                                                                                                 \
    if (!(ok)) {                                                                                                       \
      std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #ok, concat("" __VA_OPT__(, ) __VA_ARGS__).c_str()); \
      std::_Exit(1);                                                                                                   \
    }                                                                                                                  \
  } while (0)

constexpr int kGroup = 4;
constexpr int64_t kRows = 300, kCols = 512;

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// Two matrices, F32 and Q8_0, of these random bytes.
void write_gguf(const std::string& path, uint32_t seed) {
  std::mt19937 random(seed);
  const uint64_t f32 = kRows * kCols * 4, q8 = kRows * kCols / 32 * 34, second = (f32 + 31) / 32 * 32;
  std::string out = "GGUF";
  put<uint32_t>(out, 3);
  put<uint64_t>(out, 2);
  put<uint64_t>(out, 0);
  for (int i = 0; i < 2; ++i) {
    put<uint64_t>(out, 1);
    out += "ab"[i];
    put<uint32_t>(out, 2);
    put<uint64_t>(out, kCols);
    put<uint64_t>(out, kRows);
    put<uint32_t>(out, i ? 8 : 0);
    put<uint64_t>(out, i ? second : 0);
  }
  out.resize((out.size() + 31) / 32 * 32);
  const size_t data = out.size();
  out.resize(data + second + q8);
  for (size_t i = data; i < out.size(); i += 4) {
    const uint32_t word = random() & 0x3fffffff;  // a finite float
    std::memcpy(out.data() + i, &word, std::min<size_t>(4, out.size() - i));
  }
  std::ofstream(path, std::ios::binary).write(out.data(), static_cast<std::streamsize>(out.size()));
}

struct Loaded {
  std::unique_ptr<CpuLinear> linear, computed;
  Sharing sharing;
  std::optional<SharingStep> again;
};

// As Backend and Engine do it: two matrices of the file, and one that is of no file.
Loaded load_once(const std::string& model, const std::string& folder, SharingStep step, bool die = false) {
  ThreadPool pool(2);
  const std::shared_ptr<GgufFile> file = GgufFile::open(model, LoadMode::Mmap);
  std::unique_ptr<SharedPanels> shared;
  if (!folder.empty())
    shared = std::make_unique<SharedPanels>(pool, "scalar", kGroup, true, SharingRequest{folder, file.get(), step, {}});
  Loaded out;
  const std::vector<Tensor> parts = {*file->find_tensor("a"), *file->find_tensor("b")};
  out.linear = upload_linear(pool, kGroup, parts, nullptr, MatmulUse::Any, true, shared.get());
  if (die) std::raise(SIGKILL);
  const std::vector<float> values(kRows * kCols, 0.5f);
  Tensor t;
  t.shape = {kRows, kCols};
  t.data = reinterpret_cast<const uint8_t*>(values.data());
  t.bytes = values.size() * sizeof(float);
  out.computed = upload_linear(pool, kGroup, {t}, nullptr, MatmulUse::Any, true, shared.get());
  if (shared) out.sharing = shared->finish(&out.again);
  return out;
}

Loaded load(const std::string& model, const std::string& folder) {
  std::optional<SharingStep> step = SharingStep::UseOrMake;
  Loaded out;
  bool made = false;
  std::string note;
  while (step) {
    out = Loaded();
    out = load_once(model, folder, *step);
    made |= out.sharing.made;
    note += out.sharing.note;
    step = out.again;
  }
  out.sharing.made = made;
  out.sharing.note = note;
  return out;
}

bool same(const Loaded& a, const Loaded& b) {
  const auto equal = [](const CpuLinear& x, const CpuLinear& y) {
    for (size_t i = 0; i < x.parts.size(); ++i)
      if (x.parts[i].bytes() != y.parts[i].bytes() || std::memcmp(x.parts[i].data, y.parts[i].data, x.parts[i].bytes()))
        return false;
    return true;
  };
  return equal(*a.linear, *b.linear) && equal(*a.computed, *b.computed);
}

// Exit status of what a child does; a signal is 1000 + its number.
template <class Do>
pid_t start(Do run) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) std::_Exit(run());
  return child;
}
int ended(pid_t child) {
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

size_t count(const std::string& folder, const std::string& end) {
  size_t n = 0;
  for (const auto& entry : fs::directory_iterator(folder)) n += entry.path().string().ends_with(end);
  return n;
}

std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void set_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

void test_digests() {
  const auto hex = [](const std::string& text) {
    return hex_of(blake2b({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  };
  CHECK(hex("") == "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
  CHECK(hex("abc") == "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
  CHECK(hex(std::string(128, 'x')) == "164ffb7089bae6f5a62fb0795e751dc9e88eac92e1a5b2fafe93a25abf2d9c3b");
  std::string long_text;
  for (int i = 0; i < 768; ++i) long_text += static_cast<char>(i);
  CHECK(hex(long_text) == "b8007121274217790e2923e0ad7027986e5a99d5531ef6ae7d294140fc81615d");
}

// Panels of every type. Another digest means that files of earlier builds are wrong: raise kPanelLayout.
void test_layout() {
  constexpr DType types[] = {DType::F32,  DType::F16,  DType::BF16, DType::Q8_0,   DType::Q4_0,
                             DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q2_K,   DType::Q3_K,
                             DType::Q4_K, DType::Q5_K, DType::Q6_K, DType::IQ4_NL, DType::IQ4_XS};
  std::string all;
  ThreadPool pool(1);
  std::mt19937 random(9);
  for (DType type : types)
    for (const bool to_i8 : {false, true}) {
      Tensor t;
      t.dtype = type;
      t.shape = {100, 512};
      t.bytes = 100 * dtype_bytes(type, 512);
      std::vector<uint8_t> data(t.bytes);
      for (uint8_t& byte : data) byte = random() & 0x3b;  // so that no float is infinite
      t.data = data.data();
      const auto linear = upload_linear(pool, kGroup, {t}, nullptr, MatmulUse::LargeBatch, to_i8, nullptr);
      all.append(reinterpret_cast<const char*>(linear->parts[0].data), linear->parts[0].bytes());
    }
  const std::string digest = hex_of(blake2b({reinterpret_cast<const uint8_t*>(all.data()), all.size()}));
  CHECK(kPanelLayout == 2 && digest == "144151e620ff8aa212d0de020ab98442afb5e195d9d59778756821d55497b451", digest);
}

void test_made_once(const std::string& model, const std::string& folder, const Loaded& plain) {
  const Loaded first = load(model, folder);
  CHECK(first.sharing.made && first.sharing.note.empty() && same(first, plain), first.sharing.note);
  CHECK(first.sharing.private_bytes == 0 && first.linear->shared && first.linear->parts[0].own.size() == 0);
  const Loaded second = load(model, folder);
  CHECK(!second.sharing.made && second.sharing.file == first.sharing.file && same(second, plain));
  CHECK(second.sharing.shared_bytes == first.sharing.shared_bytes && count(folder, ".part") == 0);
  const PanelFile file(first.sharing.file);
  const auto one = [](std::span<const uint8_t> bytes) {
    return digest_by_pieces(bytes, [](int64_t n, const std::function<void(int64_t)>& piece) {
      for (int64_t i = 0; i < n; ++i) piece(i);
    });
  };
  CHECK(file.entries().size() == 3 && file.damaged(one) == 0 && file.origin() == model);
}

void test_at_once(const std::string& model, const std::string& folder) {
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i)
    children.push_back(start([&] {
      const Loaded loaded = load(model, folder);
      return loaded.sharing.file.empty() || !loaded.sharing.note.empty() ? 9 : loaded.sharing.made ? 1 : 0;
    }));
  int made = 0;
  for (pid_t child : children) {
    const int status = ended(child);
    CHECK(status < 2, status);
    made += status;
  }
  CHECK(made == 1, made, " processes made it");
  CHECK(count(folder, ".weights") == 1 && count(folder, ".part") == 0);
}

void test_killed(const std::string& model, const std::string& folder, const Loaded& plain) {
  CHECK(ended(start([&] {
          load_once(model, folder, SharingStep::UseOrMake, true);
          return 0;
        })) == 1000 + SIGKILL);
  CHECK(count(folder, ".part") == 1 && count(folder, ".weights") == 0);
  const Loaded loaded = load(model, folder);
  CHECK(loaded.sharing.made && same(loaded, plain) && count(folder, ".part") == 0);
}

void test_damage(const std::string& model, const std::string& folder, const Loaded& plain, const std::string& other) {
  const std::string path = load(model, folder).sharing.file, whole = bytes_of(path);
  const auto repaired = [&](const std::string& bytes, const char* what) {
    set_bytes(path, bytes);
    const Loaded loaded = load(model, folder);
    CHECK(loaded.sharing.made && !loaded.sharing.note.empty() && same(loaded, plain), what, loaded.sharing.note);
    CHECK(bytes_of(path) == whole, what);
  };
  for (size_t length : {size_t{0}, size_t{1}, size_t{111}, size_t{112}, size_t{4096}, whole.size() - 1})
    repaired(whole.substr(0, length), "truncated");
  repaired(whole + "x", "longer");
  repaired("GGUF" + whole.substr(4), "foreign");
  for (size_t place : {size_t{8}, size_t{50}, size_t{100}, whole.size() - 1, whole.size() - 200}) {
    std::string bytes = whole;
    bytes[place] = static_cast<char>(bytes[place] ^ 1);
    repaired(bytes, "one bit");
  }
  repaired(bytes_of(load(other, folder).sharing.file), "another model's");
  CHECK(chmod(path.c_str(), 0666) == 0);
  CHECK(load(model, folder).sharing.made);  // others could have written it
  fs::rename(path, path + ".moved");
  fs::create_symlink(path + ".moved", path);
  CHECK(load(model, folder).sharing.made && !fs::is_symlink(path));
  fs::remove(path + ".moved");
}

// Same size, and a modification time that was set back.
void test_replaced(const std::string& model, const std::string& folder, const std::string& changing) {
  fs::copy_file(model, changing);
  const std::string before = load(changing, folder).sharing.file;
  struct stat status;
  CHECK(stat(changing.c_str(), &status) == 0);
  const auto write_and_set_back = [&] {
    write_gguf(changing, 77);
    const struct timespec times[2] = {status.st_atim, status.st_mtim};
    CHECK(utimensat(AT_FDCWD, changing.c_str(), times, 0) == 0);
  };
  write_and_set_back();
  const Loaded after = load(changing, folder);
  CHECK(after.sharing.file != before && same(after, load(changing, "")));
}

void test_refusals(const std::string& model, const std::string& folder, const Loaded& plain) {
  const auto without = [&](const std::string& where, const char* says) {
    const Loaded loaded = load(model, where);
    CHECK(same(loaded, plain) && loaded.sharing.file.empty() && !loaded.sharing.made);
    CHECK(loaded.sharing.note.find(says) != std::string::npos, loaded.sharing.note);
  };
  set_bytes(folder + "-file", "x");
  without(folder + "-file", "expected a folder");
  without(folder + "-file/below", "cannot be made");
  fs::create_directory(folder);
  CHECK(chmod(folder.c_str(), 0777) == 0);
  without(folder, "others may write it");
  CHECK(chmod(folder.c_str(), 0700) == 0);
  if (geteuid() != 0) {
    CHECK(chmod(folder.c_str(), 0500) == 0);
    without(folder, "cannot be opened for writing");
    CHECK(chmod(folder.c_str(), 0700) == 0);
  }
  const int status = ended(start([&] {  // the disk is full, in effect; the signal's default would end the process
    const struct rlimit limit = {100000, 100000};
    setrlimit(RLIMIT_FSIZE, &limit);
    without(folder, "cannot be written");
    return 0;
  }));
  CHECK(status == 0, status);
  CHECK(count(folder, ".part") == 0 && count(folder, ".weights") == 0);
}

// Whatever a file says that has the right checksum, it is refused or can be read.
size_t test_mutations(const std::string& whole, const std::string& path, int rounds) {
  std::mt19937_64 random(5);
  size_t accepted = 0;
  uint64_t table;
  std::memcpy(&table, whole.data() + offsetof(PanelFileHeader, table), 8);
  std::string small = whole.substr(0, sizeof(PanelFileHeader)) + std::string(4096 - sizeof(PanelFileHeader), '\0');
  small += whole.substr(table);  // all entries are of no bytes, or outside
  for (int round = 0; round < rounds; ++round) {
    std::string bytes = small;
    PanelFileHeader h;
    std::memcpy(&h, bytes.data(), sizeof h);
    h.table = 4096;
    h.file_bytes = bytes.size();
    if (random() % 8) {  // entries inside what there is, so that some are accepted
      for (uint32_t i = 0; i < h.entries; ++i) {
        PanelEntry e;
        char* at = bytes.data() + 4096 + i * sizeof e;
        std::memcpy(&e, at, sizeof e);
        e.place = 4096;
        e.source.bytes = 0;
        std::memcpy(at, &e, sizeof e);
      }
    }
    const uint64_t interesting[] = {0, 1, 4096, 8192, bytes.size(), UINT64_MAX, UINT64_MAX - 4095, uint64_t{1} << 63};
    for (uint64_t i = random() % 3; i > 0; --i) {
      const uint64_t value = random() % 2 ? interesting[random() % std::size(interesting)] : random();
      const size_t place = 4096 + random() % (bytes.size() - 4096);
      std::memcpy(bytes.data() + place, &value, std::min<size_t>(8, bytes.size() - place));
    }
    if (random() % 4 == 0) {
      uint64_t* fields[] = {&h.table, &h.file_bytes, &h.origin_bytes};
      *fields[random() % 3] = interesting[random() % std::size(interesting)];
    }
    if (random() % 8 == 0) h.entries = static_cast<uint32_t>(random());
    h.checksum = {};
    std::string checked(reinterpret_cast<const char*>(&h), sizeof h);
    if (h.table <= bytes.size()) checked += bytes.substr(h.table);
    h.checksum = blake2b({reinterpret_cast<const uint8_t*>(checked.data()), checked.size()});
    std::memcpy(bytes.data(), &h, sizeof h);
    set_bytes(path, bytes);
    try {
      const PanelFile file(path);
      ++accepted;
      for (const PanelEntry& e : file.entries()) {
        const uint8_t* panels = file.find(e.source);
        CHECK(panels);
        if (e.source.bytes) {
          volatile uint8_t sum = static_cast<uint8_t>(panels[0] + panels[e.source.bytes - 1]);
          static_cast<void>(sum);
        }
      }
    } catch (const Error& e) {
      CHECK(e.code() == ErrorCode::ModelCorrupt, e.what());
    }
  }
  return accepted;
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2);
  const std::string work = argv[1], model = work + "/model.gguf", other = work + "/other.gguf";
  fs::remove_all(work);  // of an earlier run
  fs::create_directories(work);
  write_gguf(model, 1);
  write_gguf(other, 2);
  umask(022);
  test_digests();
  test_at_once(model, work + "/at-once");  // before this process has threads
  const Loaded plain = load(model, "");
  test_made_once(model, work + "/once", plain);
  test_layout();
  test_killed(model, work + "/killed", plain);
  test_damage(model, work + "/damage", plain, other);
  test_replaced(model, work + "/replaced", work + "/changing.gguf");
  test_refusals(model, work + "/refusals", plain);
  const std::string path = load(model, work + "/once").sharing.file;
  const int rounds = 3000;
  const size_t accepted = test_mutations(bytes_of(path), work + "/mutated", rounds);
  CHECK(accepted > 100 && accepted < static_cast<size_t>(rounds), accepted, " were accepted");
  std::printf("shared weights: all well; %zu of %d mutated tables were accepted\n", accepted, rounds);
  return 0;
}
