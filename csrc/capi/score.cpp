// Ranking texts through the C interface.
#include <chrono>

#include "base/limits.h"
#include "capi/options.h"
#include "capi/segments.h"

namespace ke::capi {
namespace {

Normalize normalize_of(int32_t value) {
  constexpr Normalize kAll[] = {Normalize::Sum, Normalize::Mean, Normalize::Characters};  // KOSMOS_NORMALIZE_*
  KE_CHECK(value >= KOSMOS_NORMALIZE_SUM && value <= KOSMOS_NORMALIZE_CHARACTERS, InvalidRequest,
           "normalize: expected KOSMOS_NORMALIZE_*, got ", value);
  return kAll[value];
}

// The texts behind what `request` has already. width, height: of its last image, or 0.
std::shared_ptr<RankingObject> rank(const ModelObject& model, RankRequest request, int32_t width, int32_t height,
                                    const char* const* texts, size_t count, const kosmos_score_options& o) {
  KE_CHECK(texts != nullptr && count >= 1 && count <= limits::kMaxTexts, InvalidRequest, "texts: expected 1..",
           limits::kMaxTexts, " texts, got ", texts ? concat(count) : "NULL");
  request.normalize = normalize_of(o.normalize);
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
  info.width = width;
  info.height = height;
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
    RankRequest request;
    request.around = o.template_text ? split_template(o.template_text) : default_template(m->about());
    if (i) request.image = i->embedding;
    const int32_t width = i ? i->width : 0, height = i ? i->height : 0;
    return insert_handle(Kind::Ranking, rank(*m, std::move(request), width, height, texts, text_count, o));
  });
}

kosmos_status kosmos_score_segments(const kosmos_model* model, const kosmos_segment* segments, size_t segment_count,
                                    const char* const* texts, size_t text_count, const kosmos_score_options* options,
                                    kosmos_ranking** ranking, kosmos_error** error) noexcept {
  return guarded_new(ranking, error, "ranking", [&] {
    const std::shared_ptr<ModelObject> m = model_of(model);
    const kosmos_score_options o = read_struct(options, "kosmos_score_options");
    KE_CHECK(o.template_text == nullptr, InvalidRequest,
             "template_text: the segments are all that stands before the texts; expected NULL");
    Sequence sequence = read_sequence(*m, segments, segment_count);
    RankRequest request;
    request.prompt = std::move(sequence.segments);
    const Frame& frame = sequence.frame;
    auto found = rank(*m, std::move(request), frame.width, frame.height, texts, text_count, o);
    return insert_handle(Kind::Ranking, std::move(found));
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
    out.greedy = row.greedy;
    write_struct(out, info, "kosmos_score_info");
  });
}

kosmos_status kosmos_ranking_get_info(const kosmos_ranking* ranking, kosmos_ranking_info* info,
                                      kosmos_error** error) noexcept {
  return guarded(
      error, [&] { write_struct(object_of<RankingObject>(ranking, "ranking")->info, info, "kosmos_ranking_info"); });
}

void kosmos_ranking_free(kosmos_ranking* ranking) noexcept { take_handle(ranking, Kind::Ranking); }
