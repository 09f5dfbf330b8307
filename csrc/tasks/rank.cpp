#include "tasks/rank.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/limits.h"
#include "tasks/prompts.h"
#include "tasks/trained.h"

namespace ke {
namespace {

Segment text_segment(std::string text) {
  Segment s;
  s.text = std::move(text);
  return s;
}

// Words of a template, in which tags are tags, as in all formats of prompts.
Segment template_segment(std::string text) {
  Segment s;
  s.kind = Segment::Kind::Tags;
  s.text = std::move(text);
  return s;
}

// Neumaier's sum: what is lost in every addition is added at the end, so that the order of the tokens does not show.
double sum_of(const std::vector<float>& values) {
  double sum = 0, lost = 0;
  for (const double v : values) {
    const double next = sum + v;
    lost += std::abs(sum) >= std::abs(v) ? (sum - next) + v : (v - next) + sum;
    sum = next;
  }
  return sum + lost;
}

size_t characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

double normalized(const RankedText& row, const std::string& text, Normalize by) {
  if (by == Normalize::Mean) return row.mean;
  if (by == Normalize::Characters) return row.sum / static_cast<double>(std::max<size_t>(characters(text), 1));
  return row.sum;
}

std::vector<RankedText> ranked(std::vector<Scored> scored, const RankRequest& request) {
  std::vector<RankedText> rows(scored.size());
  double top = -std::numeric_limits<double>::infinity(), total = 0;
  for (size_t i = 0; i < rows.size(); i++) {
    RankedText& row = rows[i];
    row.index = i;
    row.sum = sum_of(scored[i].logprobs);
    row.mean = row.sum / static_cast<double>(std::max<size_t>(scored[i].ids.size(), 1));
    row.greedy = scored[i].greedy;
    row.score = normalized(row, request.texts[i], request.normalize);
    row.ids = std::move(scored[i].ids);
    row.logprobs = std::move(scored[i].logprobs);
    top = std::max(top, row.score);
  }
  for (RankedText& row : rows) total += row.share = std::exp(row.score - top);
  for (RankedText& row : rows) row.share /= total;
  std::stable_sort(rows.begin(), rows.end(),
                   [](const RankedText& a, const RankedText& b) { return a.score > b.score; });
  return rows;
}

// What the texts stand behind, without the blank that is theirs.
struct Behind {
  std::vector<Segment> prompt;
  bool blank;
  std::string words{};  // of the template
};

Behind behind_image(const RankRequest& request) {
  std::string before = request.around.before;
  const bool blank = before.ends_with(' ');
  if (blank) before.pop_back();
  const size_t place = before.find(kImagePlace);
  std::vector<Segment> prompt;
  if (place != std::string::npos) {
    KE_CHECK(request.image, InvalidRequest, "template: there is no picture for {image}");
    prompt.push_back(template_segment(before.substr(0, place)));
    prompt.push_back(image_segment(request.image));
    prompt.push_back(template_segment(before.substr(place + kImagePlace.size())));
  } else {
    if (request.image) prompt.push_back(image_segment(request.image));
    if (!is_blank(before)) prompt.push_back(template_segment(before));
  }
  KE_CHECK(!prompt.empty(), InvalidRequest, "template: without a picture some words must stand before {text}");
  return {std::move(prompt), blank, std::move(before)};
}

Behind behind_prompt(const RankRequest& request) {
  std::vector<Segment> prompt = request.prompt;
  Segment& last = prompt.back();
  const bool words = last.kind == Segment::Kind::Text || last.kind == Segment::Kind::Tags;
  const bool blank = words && last.text.ends_with(' ');
  if (blank) last.text.pop_back();
  if (words && last.text.empty() && prompt.size() > 1) prompt.pop_back();
  return {std::move(prompt), blank};
}

}  // namespace

ScoreTemplate split_template(std::string_view text) {
  constexpr std::string_view kPlace = "{text}";
  check_words("template", text);
  const size_t at = text.find(kPlace);
  KE_CHECK(at != std::string_view::npos && text.find(kPlace, at + 1) == std::string_view::npos, InvalidRequest,
           "template: expected exactly one {text}, got '", text, "'");
  const size_t image = text.find(kImagePlace);
  KE_CHECK(image == text.rfind(kImagePlace) && (image == std::string_view::npos || image < at), InvalidRequest,
           "template: expected at most one {image}, before {text}, got '", text, "'");
  return {std::string(text.substr(0, at)), std::string(text.substr(at + kPlace.size()))};
}

ScoreTemplate default_template(const ModelInfo& model) {
  KE_CHECK(model.embedding == 0, InvalidRequest, kOnlyCompares);
  const PromptFormats& formats = model.prompts;
  if (formats.caption.empty()) return {formats.system, ""};  // right behind the image
  // The last blank is the texts' own: one that ends the format stays, but where answers are one text with the format.
  const bool apart = model.stop.empty() && formats.caption.ends_with(' ');
  const std::string_view blank = apart ? " " : lead_behind(formats.caption, formats);
  return {concat(formats.system, formats.caption, blank), ""};
}

Ranking rank_texts(const Engine& engine, const RankRequest& request, const CancelToken* cancel) {
  const size_t count = request.texts.size();
  KE_CHECK(count >= 1 && count <= limits::kMaxTexts, InvalidRequest, "texts: expected 1..", limits::kMaxTexts,
           " texts, got ", count);
  Behind behind = request.prompt.empty() ? behind_image(request) : behind_prompt(request);
  const std::string& after = request.around.after;
  // A blank before the texts belongs to them: their own tokens begin with it. Some tokenizers put it there themselves.
  const bool drops = engine.tokenizer()->drops_first_blank();
  std::vector<std::string> plain;
  std::vector<std::vector<Segment>> continuations;
  for (const std::string& text : request.texts) {
    plain.push_back(text + after);
    std::string whole = (behind.blank ? " " : "") + plain.back();
    if (drops && whole.starts_with(' ')) whole.erase(0, 1);
    continuations.push_back({text_segment(std::move(whole))});
  }
  Scoring scoring = engine.score(engine.prompt(behind.prompt), continuations, cancel);
  Ranking out;
  out.reused = scoring.reused;
  for (const Scored& s : scoring.continuations) out.tokens += s.ids.size();
  out.rows = ranked(std::move(scoring.continuations), request);
  out.notes = tag_notes(*engine.tokenizer(), plain, {});
  const ModelInfo& info = engine.model().info();
  const bool caption =
      request.prompt.empty() && is_blank(after) && kind_of_words(info.prompts, behind.words, true) == "caption";
  const std::string note = untrained_note(info.name, info.trained_tasks, {caption ? "caption" : "prompt"});
  if (!note.empty()) out.notes.push_back(note);
  return out;
}

}  // namespace ke
