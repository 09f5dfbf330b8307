// Ranking texts through the C interface.
#include <chrono>

#include "base/limits.h"
#include "capi/options.h"

namespace ke::capi {
namespace {

std::shared_ptr<RankingObject> rank(const ModelObject& model, const ImageObject* image, const char* const* texts,
                                    size_t count, const kosmos_score_options& o) {
  KE_CHECK(texts != nullptr && count >= 1 && count <= limits::kMaxTexts, InvalidRequest, "texts: expected 1..",
           limits::kMaxTexts, " texts, got ", texts ? concat(count) : "NULL");
  KE_CHECK(o.normalize == KOSMOS_NORMALIZE_SUM || o.normalize == KOSMOS_NORMALIZE_MEAN, InvalidRequest,
           "normalize: expected KOSMOS_NORMALIZE_SUM or KOSMOS_NORMALIZE_MEAN, got ", o.normalize);
  RankRequest request;
  request.around = o.template_text ? split_template(o.template_text) : default_template(model.about());
  request.mean = o.normalize == KOSMOS_NORMALIZE_MEAN;
  if (image) request.image = image->embedding;
  for (size_t i = 0; i < count; i++) request.texts.emplace_back(given_text(concat("texts[", i, "]").c_str(), texts[i]));

  const auto start = std::chrono::steady_clock::now();
  const CallCancel cancel(o.cancel, o.on_abort, o.user);
  cancel.token.check();
  auto out = std::make_shared<RankingObject>();
  out->ranking = rank_texts(*model.engine, request, &cancel.token);
  for (const std::string& note : out->ranking.notes) out->note_texts.push_back(note.c_str());
  out->device = model.device;
  out->model = model.name;
  kosmos_ranking_info& info = out->info;
  info.count = count;
  info.token_count = out->ranking.tokens;
  info.reused_token_count = out->ranking.reused;
  if (image) info.width = image->width, info.height = image->height;
  info.total_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  info.device = out->device.c_str();
  info.model = out->model.c_str();
  info.notes = out->note_texts.data();
  info.note_count = out->note_texts.size();
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
  return found ? found->ranking.rows.size() : 0;
}

kosmos_status kosmos_ranking_get(const kosmos_ranking* ranking, size_t rank, kosmos_score_info* info,
                                 kosmos_error** error) noexcept {
  return guarded(error, [&] {
    const std::shared_ptr<RankingObject> r = object_of<RankingObject>(ranking, "ranking");
    const std::vector<RankedText>& rows = r->ranking.rows;
    KE_CHECK(rank < rows.size(), InvalidRequest, "rank: expected less than ", rows.size(), ", got ", rank);
    const RankedText& row = rows[rank];
    kosmos_score_info out{};
    out.index = row.index;
    out.score = row.score;
    out.share = row.share;
    out.logprob_sum = row.sum;
    out.logprob_mean = row.mean;
    out.token_ids = row.ids.data();
    out.logprobs = row.logprobs.data();
    out.token_count = row.ids.size();
    write_struct(out, info, "kosmos_score_info");
  });
}

kosmos_status kosmos_ranking_get_info(const kosmos_ranking* ranking, kosmos_ranking_info* info,
                                      kosmos_error** error) noexcept {
  return guarded(
      error, [&] { write_struct(object_of<RankingObject>(ranking, "ranking")->info, info, "kosmos_ranking_info"); });
}

void kosmos_ranking_free(kosmos_ranking* ranking) noexcept { take_handle(ranking, Kind::Ranking); }
