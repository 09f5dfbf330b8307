// Ranking texts through the C interface.
#include <algorithm>
#include <cmath>

#include "base/limits.h"
#include "capi/options.h"

namespace ke::capi {
namespace {

Segment text_segment(std::string text) {
  Segment s;
  s.text = std::move(text);
  return s;
}

std::shared_ptr<RankingObject> rank(const ModelObject& model, const ImageObject* image, const char* const* texts,
                                    size_t count, const kosmos_score_options& o) {
  KE_CHECK(texts != nullptr && count >= 1 && count <= limits::kMaxTexts, InvalidRequest, "texts: expected 1..",
           limits::kMaxTexts, " texts, got ", texts ? concat(count) : "NULL");
  KE_CHECK(o.normalize == KOSMOS_NORMALIZE_SUM || o.normalize == KOSMOS_NORMALIZE_MEAN, InvalidRequest,
           "normalize: expected KOSMOS_NORMALIZE_SUM or KOSMOS_NORMALIZE_MEAN, got ", o.normalize);
  const auto [before, after] =
      split_template(o.template_text ? o.template_text : model.about().prompts.caption + " {text}");
  std::vector<Segment> prompt;
  if (image) {
    Segment s;
    s.kind = Segment::Kind::Image;
    s.image = image->embedding;
    prompt.push_back(std::move(s));
  }
  if (before.find_first_not_of(" \t\r\n") != std::string::npos) prompt.push_back(text_segment(before));
  KE_CHECK(!prompt.empty(), InvalidRequest, "template: without a picture some words must stand before {text}");
  std::vector<std::vector<Segment>> continuations;
  for (size_t i = 0; i < count; i++)
    continuations.push_back(
        {text_segment(std::string(given_text(concat("texts[", i, "]").c_str(), texts[i])) + after)});

  const CallCancel cancel(o.cancel, o.on_abort, o.user);
  cancel.token.check();
  std::vector<Scored> scored = model.engine->score(prompt, continuations, &cancel.token).continuations;
  auto out = std::make_shared<RankingObject>();
  double top = -HUGE_VAL, total = 0;
  for (size_t i = 0; i < count; i++) {
    ScoreObject row;
    row.index = i;
    for (float v : scored[i].logprobs) row.sum += v;
    row.mean = row.sum / static_cast<double>(std::max<size_t>(scored[i].ids.size(), 1));
    row.score = o.normalize == KOSMOS_NORMALIZE_SUM ? row.sum : row.mean;
    row.token_ids = std::move(scored[i].ids);
    row.logprobs = std::move(scored[i].logprobs);
    top = std::max(top, row.score);
    out->rows.push_back(std::move(row));
  }
  for (ScoreObject& row : out->rows) total += row.share = std::exp(row.score - top);
  for (ScoreObject& row : out->rows) row.share /= total;
  std::stable_sort(out->rows.begin(), out->rows.end(),
                   [](const ScoreObject& a, const ScoreObject& b) { return a.score > b.score; });
  return out;
}

}  // namespace
}  // namespace ke::capi

using namespace ke;
using namespace ke::capi;

kosmos_status kosmos_score(const kosmos_model* model, const kosmos_image* image, const char* const* texts,
                           size_t text_count, const kosmos_score_options* options, kosmos_ranking** ranking,
                           kosmos_error** error) noexcept {
  return guarded_new(ranking, error, "ranking", [&] {
    const std::shared_ptr<ModelObject> m = model_of(model);
    const std::shared_ptr<ImageObject> i = image ? image_of(image, *m, "image") : nullptr;
    const kosmos_score_options o = read_struct(options, "kosmos_score_options");
    return insert_handle(Kind::Ranking, rank(*m, i.get(), texts, text_count, o));
  });
}

size_t kosmos_ranking_count(const kosmos_ranking* ranking) noexcept {
  const auto found = std::static_pointer_cast<RankingObject>(find_handle(ranking, Kind::Ranking));
  return found ? found->rows.size() : 0;
}

kosmos_status kosmos_ranking_get(const kosmos_ranking* ranking, size_t rank, kosmos_score_info* info,
                                 kosmos_error** error) noexcept {
  return guarded(error, [&] {
    const std::shared_ptr<RankingObject> r = object_of<RankingObject>(ranking, "ranking");
    KE_CHECK(rank < r->rows.size(), InvalidRequest, "rank: expected less than ", r->rows.size(), ", got ", rank);
    const ScoreObject& row = r->rows[rank];
    kosmos_score_info out{};
    out.index = row.index;
    out.score = row.score;
    out.share = row.share;
    out.logprob_sum = row.sum;
    out.logprob_mean = row.mean;
    out.token_ids = row.token_ids.data();
    out.logprobs = row.logprobs.data();
    out.token_count = row.token_ids.size();
    write_struct(out, info, "kosmos_score_info");
  });
}

void kosmos_ranking_free(kosmos_ranking* ranking) noexcept { take_handle(ranking, Kind::Ranking); }
