// How likely given texts are after a prompt: the prompt is computed once, then the tokens of several texts in one pass,
// each text with a copy of the prompt's keys and values.
#include <algorithm>

#include "backend/logits.h"
#include "base/error.h"
#include "engine/engine.h"

namespace ke {
namespace {

constexpr int64_t kTogether = 8;             // texts in one pass, each with a copy of the prompt in memory,
constexpr int64_t kPositionsTogether = 640;  // of so many positions in all: 126 MB in KOSMOS-2
constexpr size_t kRowsTogether = 64;         // with their logits: 17 MB in KOSMOS-2

// A token of a text whose successor is scored.
struct Place {
  Scored* text;
  size_t token;
  KvCache* cache;
};

// The next token of the text, of which `logits` are those at its place.
void add(Scored& text, std::span<const float> logits) {
  const int32_t id = text.ids[text.logprobs.size()];
  text.greedy = text.greedy && argmax(logits) == id;
  text.logprobs.push_back(static_cast<float>(log_probability(logits, id)));
}

std::vector<Scored> tokens_of(const Engine& engine, const std::vector<std::vector<Segment>>& continuations) {
  const auto begin = static_cast<ptrdiff_t>(engine.model().info().begin.size());  // ids that start every prompt
  std::vector<Scored> texts;
  for (size_t i = 0; i < continuations.size(); i++) {
    Scored s;
    for (const Segment& segment : continuations[i])
      KE_CHECK(segment.kind != Segment::Kind::Image && segment.kind != Segment::Kind::Rows, InvalidRequest,
               "continuation ", i, " holds a picture or rows");
    s.ids = continuations[i].empty() ? std::vector<int32_t>{} : engine.prompt(continuations[i], /*goes_on=*/true).ids;
    KE_CHECK(s.ids.size() > static_cast<size_t>(begin), InvalidRequest, "continuation ", i, " has no tokens");
    s.ids.erase(s.ids.begin(), s.ids.begin() + begin);
    texts.push_back(std::move(s));
  }
  return texts;
}

}  // namespace

Scoring Engine::score(const Prompt& prompt, const std::vector<std::vector<Segment>>& continuations,
                      const CancelToken* cancel) const {
  KE_CHECK(!continuations.empty(), InvalidRequest, "there is nothing to score: expected at least one continuation");
  const int64_t n = static_cast<int64_t>(prompt.ids.size());
  const size_t vocab = static_cast<size_t>(model_->info().vocab);
  Scoring out;
  out.continuations = tokens_of(*this, continuations);
  size_t longest = 0;
  for (const Scored& s : out.continuations) longest = std::max(longest, s.ids.size());
  check_context(*model_, prompt, static_cast<int64_t>(longest));

  std::vector<std::unique_ptr<KvCache>> caches;
  caches.push_back(model_->new_cache(n + static_cast<int64_t>(longest)));
  const std::vector<float> first = prefill(*model_, prompt, *caches[0], cancel, &out.reused);
  std::vector<Scored*> longer;  // those whose first token is not all
  for (Scored& s : out.continuations) {
    add(s, first);
    if (s.ids.size() > 1) longer.push_back(&s);
  }
  const int64_t positions = n + static_cast<int64_t>(longest);
  const size_t together = static_cast<size_t>(std::clamp<int64_t>(kPositionsTogether / positions, 1, kTogether));
  while (caches.size() < std::min(together, longer.size())) {
    caches.push_back(model_->new_cache(positions));
    model_->copy_cache(*caches[0], *caches.back(), 0, n);
  }

  std::vector<Place> places;
  std::vector<InputRow> rows;
  std::vector<int32_t> logit_rows;
  std::vector<float> logits;
  for (size_t begin = 0; begin < longer.size(); begin += together) {  // each overwrites what follows the prompt
    places.clear();
    for (size_t i = begin; i < std::min(begin + together, longer.size()); i++)
      for (size_t token = 0; token + 1 < longer[i]->ids.size(); token++)
        places.push_back({longer[i], token, caches[i - begin].get()});
    for (size_t from = 0; from < places.size(); from += kRowsTogether) {
      const auto pass = std::span(places).subspan(from, std::min(kRowsTogether, places.size() - from));
      rows.clear();
      logit_rows.clear();
      for (const Place& p : pass) {
        logit_rows.push_back(static_cast<int32_t>(rows.size()));
        rows.push_back(prompt.row_behind(p.text->ids[p.token], static_cast<size_t>(n) + p.token, p.cache));
      }
      logits.resize(rows.size() * vocab);
      model_->forward(rows, logit_rows, logits.data(), cancel);
      check_finite(logits);
      for (size_t r = 0; r < pass.size(); r++) add(*pass[r].text, std::span(logits).subspan(r * vocab, vocab));
    }
  }
  return out;
}

}  // namespace ke
