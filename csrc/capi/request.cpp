#include "capi/request.h"

#include <chrono>
#include <limits>

#include "base/limits.h"
#include "tasks/prompts.h"

namespace ke::capi {
namespace {

Verb verb_of(int32_t task) {
  constexpr Verb kVerbs[] = {Verb::Caption,  Verb::Ground, Verb::Locate,
                             Verb::Describe, Verb::Ask,    Verb::Read};  // KOSMOS_TASK_*
  KE_CHECK(task >= KOSMOS_TASK_CAPTION && task <= KOSMOS_TASK_READ, InvalidRequest,
           "task: expected KOSMOS_TASK_*, got ", task);
  return kVerbs[task - KOSMOS_TASK_CAPTION];
}

// The images and boxes of a request at the places of its plan: the examples' first.
class Places {
 public:
  Places(const ModelObject& model, const VerbTraits& traits) : model_(model), traits_(traits) {}

  Example example(const kosmos_example& given, size_t number) {
    const std::string name = concat("examples[", number, "]");
    const bool takes_text = traits_.verb == Verb::Ask;
    KE_CHECK(given.text == nullptr || takes_text, InvalidRequest, name, ".text: only ask takes one");
    add(*image_of(given.image, model_, (name + ".image").c_str()), given.region, name + ".region");
    Example out;
    if (takes_text) out.text = given_text((name + ".text").c_str(), given.text);
    out.answer = given_text((name + ".answer").c_str(), given.answer);
    return out;
  }

  void add(const ImageObject& image, const kosmos_region* region, const std::string& name) {
    KE_CHECK(region == nullptr || traits_.takes_box, InvalidRequest, name, ": this task does not take one");
    images.push_back(image.embedding);
    width = image.width;
    height = image.height;
    if (!traits_.takes_box) return;
    KE_CHECK(model_.about().grounding, InvalidRequest, traits_.name, ": ", kNoGrounding);
    boxes.push_back({cells_of(required_struct(region, name.c_str()), image.width, image.height,
                              model_.info.location_bins, name.c_str())});
  }

  Turn turn(const kosmos_turn& given, size_t number) {
    const std::string name = concat("turns[", number, "]");
    Turn out;
    out.text = given_text((name + ".question").c_str(), given.question);
    KE_CHECK(given.answer != nullptr, InvalidRequest, name, ".answer: expected a text, got NULL");
    out.answer = given.answer;  // the plan checks it; a model may have said nothing
    out.image = given.image != nullptr;
    if (out.image)
      add(*image_of(given.image, model_, (name + ".image").c_str()), nullptr, name);
    else
      images.emplace_back();  // its place
    return out;
  }

  std::vector<ImageHandle> images;
  std::vector<Cells> boxes;
  int32_t width = 0, height = 0;  // of the last image

 private:
  const ModelObject& model_;
  const VerbTraits& traits_;
};

}  // namespace

Prepared prepare(const ModelObject& model, const kosmos_request& request) {
  const VerbTraits& traits = traits_of(verb_of(request.task));
  Prepared out;
  out.options = read_struct(request.options, "kosmos_options");
  const kosmos_options& o = out.options;
  const bool may_lack_image = traits.takes_turns && o.turn_count > 0 && request.image == nullptr;
  const std::shared_ptr<ImageObject> image = may_lack_image ? nullptr : image_of(request.image, model, "image");
  out.request = check_options(o, &traits, model);
  KE_CHECK(request.text == nullptr || !traits.text.empty(), InvalidRequest, "text: this task does not take one");

  VerbRequest asked;
  asked.verb = traits.verb;
  asked.ground = switched("ground", o.ground, traits.ground);
  asked.detailed = switched("detailed", o.detailed, false);
  asked.markdown = switched("markdown", o.markdown, false);
  asked.choices = !out.request.params.choices.empty();
  if (request.text || traits.needs_text) asked.text = given_text(std::string(traits.text).c_str(), request.text);
  if (o.template_text) asked.format = given_text("template_text", o.template_text);
  KE_CHECK(o.example_count <= limits::kMaxExamples && (o.example_count == 0 || o.examples), InvalidRequest,
           "examples: expected at most ", limits::kMaxExamples, ", got ",
           o.examples ? concat(o.example_count) : "NULL");
  Places places(model, traits);
  for (const kosmos_example& given : read_array(o.examples, o.example_count, "examples"))
    asked.examples.push_back(places.example(given, asked.examples.size()));
  KE_CHECK(o.turn_count <= limits::kMaxTurns && (o.turn_count == 0 || o.turns), InvalidRequest,
           "turns: expected at most ", limits::kMaxTurns, ", got ", o.turns ? concat(o.turn_count) : "NULL");
  for (const kosmos_turn& given : read_array(o.turns, o.turn_count, "turns"))
    asked.turns.push_back(places.turn(given, asked.turns.size()));
  asked.image = image != nullptr;
  if (image)
    places.add(*image, request.region, "region");
  else
    KE_CHECK(request.region == nullptr, InvalidRequest, "region: this task does not take one");

  Plan plan = plan_verb(model.about(), asked);
  out.request.segments = filled(std::move(plan.segments), places.images, places.boxes);
  out.request.one_object = plan.one_object;
  out.request.page = traits.verb == Verb::Read;
  out.request.markdown = plan.markdown;
  out.request.notes = std::move(plan.notes);
  out.frame.width = places.width;
  out.frame.height = places.height;
  if (traits.takes_box) {
    const auto cells = places.boxes.back().front();
    out.frame.seen_box = box_of(cells_to_box(cells.first, cells.second, model.info.location_bins), cells,
                                std::numeric_limits<double>::quiet_NaN(), places.width, places.height);
  }
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
  out.on_event = [=, &frame](const AnswerEvent& event, size_t) {
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

void* result_handle(AnswerResult result, const ModelObject& model, const Frame& frame, double ms) {
  model.log(KOSMOS_LOG_DEBUG, "answered with ", result.generation.ids.size(), " tokens after ",
            result.generation.prompt_ids.size(), " in ", ms, " ms");
  return insert_handle(Kind::Result, make_result(std::move(result), model, frame, ms));
}

void* answer(const ModelObject& model, const Prepared& p) {
  const auto start = std::chrono::steady_clock::now();
  const CallCancel cancel(p.options.cancel, p.options.on_abort, p.options.user);
  cancel.token.check();
  AnswerResult result = run_answer(*model.engine, p.request, watcher_of(p.options, p.frame), &cancel.token);
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return result_handle(std::move(result), model, p.frame, ms);
}

}  // namespace ke::capi
