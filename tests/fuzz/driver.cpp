// Runs cases: kosmos_edge_fuzz TARGET SEED FIRST COUNT [FOLDER]
// A case is (target, seed, number); the same three always make the same bytes. With a FOLDER each input is also written
// there with its verdict (NUMBER.bin; verdicts.txt), for other readers to be compared with.
//       kosmos_edge_fuzz TARGET FILE: runs that file's bytes once and prints the verdict.
// Prints one line of totals. A crash, a sanitizer's report, a broken promise and a case of more than 20 s of processor
// time end the program with an error, after the line that replays the case.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <fstream>
#include <iterator>
#include <thread>

#include "targets.h"

extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

namespace {

constexpr double kLongestCase = 20;  // s of processor time

const fuzz::Target* const kTargets[] = {&fuzz::header_target, &fuzz::gguf_target, &fuzz::tokenizer_target,
                                        &fuzz::image_target};
const char* target_name = "";
std::string replay_words;            // seed, or the file
std::atomic<long long> current{-1};  // number of the case that runs
std::atomic<double> case_began{0};   // processor time

double processor_time() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

void print_replay() {
  std::fprintf(stderr, "replay: kosmos_edge_fuzz %s %s %lld 1\n", target_name, replay_words.c_str(), current.load());
}

void on_terminate() {
  std::fprintf(stderr, "an exception that is no ke::Error\n");
  print_replay();
  std::abort();
}

void watch_time() {
  for (;;) {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    if (current >= 0 && processor_time() - case_began > kLongestCase) {
      std::fprintf(stderr, "a case runs for more than %g s\n", kLongestCase);
      print_replay();
      std::_Exit(3);
    }
  }
}

std::string verdict(const fuzz::Outcome& o) { return o.accepted ? "accepted" : o.error.empty() ? "skipped" : o.error; }

int run_file(const fuzz::Target& target, const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::fprintf(stderr, "cannot read %s\n", path), 2;
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  std::printf("%s\n", verdict(target.run({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()})).c_str());
  return 0;
}

int run_cases(const fuzz::Target& target, uint64_t seed, long long first, long long count, const char* folder) {
  long long accepted = 0, captioned = 0;
  std::ofstream verdicts;
  if (folder) verdicts.open(std::string(folder) + "/verdicts.txt");
  const double begin = processor_time();
  for (long long number = first; number < first + count; ++number) {
    case_began = processor_time();
    current = number;
    fuzz::Random random(seed, static_cast<uint64_t>(number));
    const fuzz::Bytes bytes = target.make(random);
    if (folder)
      std::ofstream(std::string(folder) + "/" + std::to_string(number) + ".bin", std::ios::binary)
          .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    const fuzz::Outcome outcome = target.run(bytes);
    if (folder) verdicts << number << '\t' << verdict(outcome) << '\n';
    accepted += outcome.accepted;
    captioned += outcome.captioned;
  }
  current = -1;
  const double seconds = processor_time() - begin;
  std::printf(
      "%-10s seed %llu cases %lld..%lld: %lld cases, %lld accepted, %lld captioned, %.0f per second of processor "
      "time, 0 bad\n",
      target.name, static_cast<unsigned long long>(seed), first, first + count - 1, count, accepted, captioned,
      static_cast<double>(count) / (seconds > 0 ? seconds : 1e-9));
  return 0;
}

}  // namespace

void fuzz::broken(const std::string& promise) {
  std::fprintf(stderr, "broken: %s\n", promise.c_str());
  print_replay();
  std::abort();
}

int main(int argc, char** argv) {
  for (const fuzz::Target* target : kTargets) {
    if (argc < 3 || std::strcmp(argv[1], target->name) != 0) continue;
    target_name = target->name;
    replay_words = argv[2];
    std::set_terminate(on_terminate);
    if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(print_replay);
    std::thread(watch_time).detach();
    if (argc == 3) return run_file(*target, argv[2]);
    if (argc == 5 || argc == 6)
      return run_cases(*target, std::strtoull(argv[2], nullptr, 10), std::atoll(argv[3]), std::atoll(argv[4]),
                       argc == 6 ? argv[5] : nullptr);
  }
  std::fprintf(stderr, "kosmos_edge_fuzz header|gguf|tokenizer|image SEED FIRST COUNT [FOLDER], or TARGET FILE\n");
  return 2;
}
