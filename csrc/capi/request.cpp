#include "capi/request.h"

#include <chrono>
#include <limits>

#include "tasks/trained.h"

namespace ke::capi {
namespace {

// What each task makes of the options.
Verb verb_of(int32_t task) {
  switch (task) {
    case KOSMOS_TASK_CAPTION:
      return {.takes_ground = true, .takes_detailed = true};
    case KOSMOS_TASK_GROUND:
    case KOSMOS_TASK_LOCATE:
      return {};
    case KOSMOS_TASK_DESCRIBE:
      return {.takes_ground = true, .ground = true};
    case KOSMOS_TASK_ASK:
      return {.takes_ground = true, .takes_choices = true};
    default:
      fail(ErrorCode::InvalidRequest, "task: expected KOSMOS_TASK_*, got ", task);
  }
}

std::vector<Segment> segments_of(const ModelObject& m, const kosmos_request& r, const ImageObject& i, CheckedOptions& o,
                                 Frame& frame) {
  const bool takes_text = r.task == KOSMOS_TASK_GROUND || r.task == KOSMOS_TASK_LOCATE || r.task == KOSMOS_TASK_ASK;
  KE_CHECK(r.text == nullptr || takes_text, InvalidRequest, "text: this task does not take one");
  KE_CHECK(r.region == nullptr || r.task == KOSMOS_TASK_DESCRIBE, InvalidRequest,
           "region: this task does not take one");
  KE_CHECK(m.about().grounding || (r.task != KOSMOS_TASK_GROUND && r.task != KOSMOS_TASK_LOCATE &&
                                   r.task != KOSMOS_TASK_DESCRIBE && !o.ground && !o.request.params.grammar),
           InvalidRequest, kNoGrounding);
  switch (r.task) {
    case KOSMOS_TASK_CAPTION:
      return caption_prompt(m.about(), i.embedding, o.detailed, o.ground);
    case KOSMOS_TASK_GROUND:
      return ground_prompt(m.about(), i.embedding, r.text ? given_text("prompt", r.text) : "");
    case KOSMOS_TASK_LOCATE:
      KE_CHECK(!o.request.keep_prompt, InvalidRequest, "lead_in: locate does not take it");
      o.request.one_object = frame.expects_object = true;
      return locate_prompt(m.about(), i.embedding, given_text("phrase", r.text));
    case KOSMOS_TASK_DESCRIBE: {
      const int64_t bins = m.info.location_bins;
      const auto cells = cells_of(required_struct(r.region, "region"), i.width, i.height, bins, "region");
      frame.seen_box = box_of(cells_to_box(cells.first, cells.second, bins), cells,
                              std::numeric_limits<double>::quiet_NaN(), i.width, i.height);
      return describe_prompt(m.about(), i.embedding, cells, o.ground);
    }
    default:
      return ask_prompt(m.about(), i.embedding, given_text("question", r.text), o.ground);
  }
}

std::string_view kind_of(const ModelObject& m, const kosmos_request& r, const CheckedOptions& o) {
  switch (r.task) {
    case KOSMOS_TASK_CAPTION:
      return o.detailed ? "caption_long" : "caption";
    case KOSMOS_TASK_GROUND: {
      const std::string_view kind = r.text ? kind_of_words(m.about().prompts, r.text, true) : "caption";
      return kind.empty() ? "prompt" : kind;
    }
    case KOSMOS_TASK_LOCATE:
      return "locate";
    case KOSMOS_TASK_DESCRIBE:
      return o.ground ? "describe" : "describe_plain";
    default:
      return o.ground ? "ask_boxes" : "ask";
  }
}

}  // namespace

std::string note_untrained(const ModelObject& model, const std::vector<std::string_view>& kinds) {
  return untrained_note(model.name, model.about().trained_tasks, kinds);
}

Prepared prepare(const ModelObject& model, const kosmos_request& request) {
  const Verb verb = verb_of(request.task);
  const std::shared_ptr<ImageObject> image = image_of(request.image, model, "image");
  Prepared out;
  out.options = read_struct(request.options, "kosmos_options");
  CheckedOptions checked = check_options(out.options, verb, model);
  out.frame.width = image->width;
  out.frame.height = image->height;
  checked.request.segments = segments_of(model, request, *image, checked, out.frame);
  out.frame.untrained = note_untrained(model, {kind_of(model, request, checked)});
  out.request = std::move(checked.request);
  return out;
}

AnswerWatcher watcher_of(const kosmos_options& o, const Frame& frame) {
  if (o.on_event == nullptr) return {};
  const auto event_of = [](int32_t kind) {
    kosmos_event e{};
    e.struct_size = sizeof(e);
    e.kind = kind;
    e.text = "";
    return e;
  };
  AnswerWatcher out;
  out.on_token = [=](int32_t id, float logprob) {
    kosmos_event e = event_of(KOSMOS_EVENT_TOKEN);
    e.token_id = id;
    e.logprob = logprob;
    return o.on_event(&e, o.user) == 0;
  };
  out.on_event = [=, &frame](const AnswerEvent& event) {
    if (const std::string* text = std::get_if<std::string>(&event)) {
      kosmos_event e = event_of(KOSMOS_EVENT_TEXT);
      e.text = text->c_str();
      e.text_length = text->size();
      return o.on_event(&e, o.user) == 0;
    }
    const EntityObject entity(std::get<AnswerEntity>(event), frame.width, frame.height);
    const kosmos_entity view = entity.view();
    kosmos_event e = event_of(KOSMOS_EVENT_ENTITY);
    e.entity = &view;
    return o.on_event(&e, o.user) == 0;
  };
  return out;
}

void* result_handle(AnswerReply reply, const ModelObject& model, const Frame& frame, double ms) {
  model.log(KOSMOS_LOG_DEBUG, "answered with ", reply.generation.ids.size(), " tokens after ",
            reply.generation.prompt_ids.size(), " in ", ms, " ms");
  return insert_handle(Kind::Result, make_result(std::move(reply), model, frame, ms));
}

void* answer(const ModelObject& model, const Prepared& p) {
  const auto start = std::chrono::steady_clock::now();
  const CallCancel cancel(p.options.cancel, p.options.on_abort, p.options.user);
  cancel.token.check();
  AnswerReply reply = run_answer(*model.engine, p.request, watcher_of(p.options, p.frame), &cancel.token);
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return result_handle(std::move(reply), model, p.frame, ms);
}

}  // namespace ke::capi
