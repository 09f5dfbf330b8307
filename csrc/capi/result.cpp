// Results of the C interface: an answer with everything that is handed out, and its accessors.
#include "capi/result.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ke::capi {

kosmos_box box_of(const Box& b, std::pair<int32_t, int32_t> cells, double score, int32_t width, int32_t height) {
  kosmos_box out{};
  out.x1 = b.x1, out.y1 = b.y1, out.x2 = b.x2, out.y2 = b.y2;
  out.px1 = b.x1 * width, out.py1 = b.y1 * height, out.px2 = b.x2 * width, out.py2 = b.y2 * height;
  out.score = score;
  out.cells[0] = cells.first, out.cells[1] = cells.second;
  out.valid = b.x2 > b.x1 && b.y2 > b.y1;
  return out;
}

std::pair<int32_t, int32_t> cells_of(const kosmos_region& r, int32_t width, int32_t height, int64_t bins,
                                     const char* name) {
  KE_CHECK(r.unit == KOSMOS_UNIT_PIXELS || r.unit == KOSMOS_UNIT_NORMALIZED, InvalidRequest, name,
           ".unit: expected KOSMOS_UNIT_PIXELS or KOSMOS_UNIT_NORMALIZED, got ", r.unit);
  const bool pixels = r.unit == KOSMOS_UNIT_PIXELS;
  KE_CHECK(!pixels || width > 0, InvalidRequest, name, ": pixels of what? there is no picture before the box");
  const double w = pixels ? width : 1, h = pixels ? height : 1;
  const bool one_pixel = width == 1 && height == 1;  // both readings are the same
  KE_CHECK(!pixels || one_pixel || std::max({r.x1, r.y1, r.x2, r.y2}) > 1 || std::min({r.x1, r.y1, r.x2, r.y2}) < 0,
           InvalidRequest, name, ": which unit is meant? As fractions of the picture, (", r.x1, ", ", r.y1, ", ", r.x2,
           ", ", r.y2,
           ") needs unit KOSMOS_UNIT_NORMALIZED; as pixels it would lie within the upper left one, which fractions can "
           "name, too");
  KE_CHECK(0 <= r.x1 && r.x1 < r.x2 && r.x2 <= w && 0 <= r.y1 && r.y1 < r.y2 && r.y2 <= h, InvalidRequest, name,
           ": expected 0 <= x1 < x2 <= ", w, " and 0 <= y1 < y2 <= ", h, pixels ? " (pixels)" : " (normalized)",
           ", got (", r.x1, ", ", r.y1, ", ", r.x2, ", ", r.y2, ")");
  return box_to_cells({r.x1 / w, r.y1 / h, r.x2 / w, r.y2 / h}, bins);
}

EntityObject::EntityObject(const AnswerEntity& e, int32_t width, int32_t height)
    : phrase(e.phrase),
      start(e.begin_byte),
      end(e.end_byte),
      score(e.score),
      phrase_score(e.phrase_score),
      phrase_mean(e.phrase_mean),
      found_score(e.found_score) {
  for (const AnswerBox& b : e.boxes) boxes.push_back(box_of(b.box, b.cells, b.score, width, height));
}

kosmos_entity EntityObject::view() const {
  kosmos_entity out{};
  out.struct_size = sizeof(out);
  out.phrase = phrase.c_str();
  out.phrase_length = phrase.size();
  out.start = start;
  out.end = end;
  out.score = score;
  out.boxes = boxes.data();
  out.box_count = boxes.size();
  out.phrase_score = phrase_score;
  out.found_score = found_score;
  out.phrase_mean = phrase_mean;
  return out;
}

static int32_t finish_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::Eos:
      return KOSMOS_FINISH_END;
    case FinishReason::StopString:
      return KOSMOS_FINISH_STOP_STRING;
    case FinishReason::Length:
      return KOSMOS_FINISH_LENGTH;
    case FinishReason::Choice:
      return KOSMOS_FINISH_CHOICE;
    case FinishReason::Callback:
      return KOSMOS_FINISH_STOPPED;
  }
  return KOSMOS_FINISH_END;
}

std::shared_ptr<ResultObject> make_result(AnswerResult result, const ModelObject& model, const Frame& frame,
                                          double total_ms) {
  auto r = std::make_shared<ResultObject>();
  r->text = std::move(result.answer.text);
  r->device = model.device;
  r->model = model.name;
  for (const AnswerEntity& e : result.answer.entities) r->entities.emplace_back(e, frame.width, frame.height);
  r->token_ids = std::move(result.generation.ids);
  r->logprobs = std::move(result.generation.logprobs);
  for (const TokenLogprob& t : result.generation.top) {
    r->top_token_ids.push_back(t.id);
    r->top_logprobs.push_back(t.logprob);
  }
  r->notes = std::move(result.notes);
  for (const std::string& note : r->notes) r->note_texts.push_back(note.c_str());

  kosmos_result_info& info = r->info;
  info.text = r->text.c_str();
  info.text_length = r->text.size();
  info.entity_count = r->entities.size();
  info.token_ids = r->token_ids.data();
  info.logprobs = r->logprobs.data();
  info.token_count = r->token_ids.size();
  info.top_token_ids = r->top_token_ids.data();
  info.top_logprobs = r->top_logprobs.data();
  info.top_count = info.token_count == 0 ? 0 : r->top_token_ids.size() / info.token_count;
  info.prompt_token_count = result.generation.prompt_ids.size();
  info.reused_token_count = result.generation.reused;
  info.finish = finish_of(result.reason);
  info.width = frame.width;
  info.height = frame.height;
  if (frame.seen_box) {
    info.has_box = 1;
    info.box = *frame.seen_box;
  }
  info.prefill_ms = result.generation.prefill_ms;
  info.decode_ms = result.generation.decode_ms;
  info.total_ms = total_ms;
  info.device = r->device.c_str();
  info.model = r->model.c_str();
  info.notes = r->note_texts.data();
  info.note_count = r->note_texts.size();
  return r;
}

}  // namespace ke::capi

using namespace ke;
using namespace ke::capi;

kosmos_status kosmos_result_get(const kosmos_result* result, kosmos_result_info* info, kosmos_error** error) noexcept {
  return guarded(error,
                 [&] { write_struct(object_of<ResultObject>(result, "result")->info, info, "kosmos_result_info"); });
}

kosmos_status kosmos_result_get_entity(const kosmos_result* result, size_t index, kosmos_entity* entity,
                                       kosmos_error** error) noexcept {
  return guarded(error, [&] {
    const std::shared_ptr<ResultObject> r = object_of<ResultObject>(result, "result");
    KE_CHECK(index < r->entities.size(), InvalidRequest, "index: expected less than entity_count, ", r->entities.size(),
             ", got ", index);
    write_struct(r->entities[index].view(), entity, "kosmos_entity");
  });
}

void kosmos_result_free(kosmos_result* result) noexcept { take_handle(result, Kind::Result); }
