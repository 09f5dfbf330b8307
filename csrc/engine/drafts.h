// Drafts that an engine learns from its own answers: tokens that will probably come, so that it pays to compute what
// follows them in the pass that decides whether they do (sequence.h). For any number of threads.
#pragma once
#include <atomic>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "engine/draft_table.h"
#include "engine/pass_cost.h"
#include "models/info.h"
#include "text/tokenizer.h"

namespace ke {

enum class DraftMode {
  Auto,   // as many as pay by the measured times of passes
  Fixed,  // as many as pay by PassCost::rule: the same on every machine, whatever else it does
  Off,    // none of these; tags and choices are drafted nevertheless
};
// "auto", "fixed" or "off"; InvalidRequest, naming `what`.
DraftMode draft_mode_of(std::string_view name, std::string_view what);
const char* draft_mode_name(DraftMode mode);

constexpr size_t kMostDrafts = 7;  // of an answer in a pass: with the row before them 8, a number of rows that is cheap

// What else is in a pass: how many answers take a token from it, and how many drafts it has room for.
struct DraftRoom {
  size_t answers = 1;
  size_t drafts = kMostDrafts;
};

class Drafts {
 public:
  Drafts(const Tokenizer& tokenizer, DraftMode mode);

  DraftMode mode() const { return mode_.load(std::memory_order_relaxed); }
  void set_mode(DraftMode mode) { mode_.store(mode, std::memory_order_relaxed); }
  bool on() const { return mode() != DraftMode::Off; }
  bool timed() const { return mode() == DraftMode::Auto; }

  // Appends drafts behind those that are there already (tags of the grammar), so that there are at most room.drafts: as
  // many as give the most tokens for the time of the pass. `text`: prompt and answer so far; used as scratch, with room
  // for the drafts, and left as it was. ngram: no_repeat_ngram_size.
  void extend(std::vector<int32_t>& text, int32_t ngram, const DraftRoom& room, std::vector<int32_t>& drafts);
  // `id` was decided on behind `text`.
  void learn(std::span<const int32_t> text, int32_t ngram, int32_t id);
  // Learns from ids of a prompt.
  void note(std::span<const int32_t> ids);
  // A pass of so many rows, with the whole output matrix, took so long.
  void took(size_t rows, double ms);

 private:
  double cost(size_t rows) const { return timed() ? cost_.of(rows) : PassCost::rule(rows); }

  std::atomic<DraftMode> mode_;
  std::mutex mutex_;
  DraftTable table_;
  PassCost cost_;
  std::vector<int32_t> banned_;  // scratch
};

}  // namespace ke
