// The functions of the C interface that answer.
#include <chrono>
#include <limits>

#include "capi/options.h"
#include "capi/result.h"

namespace ke::capi {
namespace {

// Hands the growing answer to the host's callback.
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
  out.on_event = [=](const AnswerEvent& event) {
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

void* answer(const ModelObject& model, const kosmos_options& o, const AnswerRequest& request, const Frame& frame) {
  const auto start = std::chrono::steady_clock::now();
  const CallCancel cancel(o.cancel, o.on_abort, o.user);
  cancel.token.check();
  AnswerReply reply = run_answer(*model.engine, request, watcher_of(o, frame), &cancel.token);
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  model.log(KOSMOS_LOG_DEBUG, "answered with ", reply.generation.ids.size(), " tokens after ",
            reply.generation.prompt_ids.size(), " in ", ms, " ms");
  return insert_handle(Kind::Result, make_result(std::move(reply), model, frame, ms));
}

// A verb about one image: prompt(model, image, options, frame) gives the segments.
template <class Prompt>
kosmos_status about_image(const kosmos_model* model, const kosmos_image* image, const kosmos_options* options,
                          kosmos_result** result, kosmos_error** error, const Verb& verb, Prompt&& prompt) noexcept {
  return guarded_new(result, error, "result", [&] {
    const std::shared_ptr<ModelObject> m = model_of(model);
    const std::shared_ptr<ImageObject> i = image_of(image, *m, "image");
    const kosmos_options o = read_struct(options, "kosmos_options");
    CheckedOptions checked = check_options(o, verb, m->info);
    Frame frame;
    frame.width = i->width;
    frame.height = i->height;
    checked.request.segments = prompt(*m, *i, checked, frame);
    return answer(*m, o, checked.request, frame);
  });
}

// ---- generate

class SegmentReader {
 public:
  explicit SegmentReader(const ModelObject& model) : model_(model) {}

  void add(const kosmos_segment& given, size_t number) {
    const std::string name = concat("segments[", number, "]");
    Segment s;
    switch (given.kind) {
      case KOSMOS_SEGMENT_TEXT:
      case KOSMOS_SEGMENT_RAW_TEXT:
        s.kind = given.kind == KOSMOS_SEGMENT_TEXT ? Segment::Kind::Text : Segment::Kind::Tags;
        s.text = given_text(name.c_str(), given.text);
        break;
      case KOSMOS_SEGMENT_IMAGE: {
        const std::shared_ptr<ImageObject> image = image_of(given.image, model_, name.c_str());
        s.kind = Segment::Kind::Image;
        s.image = image->embedding;
        frame.width = image->width;
        frame.height = image->height;
        break;
      }
      case KOSMOS_SEGMENT_BOXES:
        s.kind = Segment::Kind::Boxes;
        s.cells = cells(given, name);
        break;
      default:
        fail(ErrorCode::InvalidRequest, name, ".kind: expected KOSMOS_SEGMENT_*, got ", given.kind);
    }
    segments.push_back(std::move(s));
  }

  std::vector<Segment> segments;
  Frame frame;

 private:
  std::vector<std::pair<int32_t, int32_t>> cells(const kosmos_segment& given, const std::string& name) const {
    KE_CHECK(given.boxes != nullptr && given.box_count >= 1 && given.box_count <= 1024, InvalidRequest, name,
             ": expected 1..1024 boxes, got ", given.boxes ? concat(given.box_count) : "NULL");
    const char* at = reinterpret_cast<const char*>(given.boxes);
    const size_t size = given.boxes->struct_size;
    std::vector<std::pair<int32_t, int32_t>> out;
    for (size_t i = 0; i < given.box_count; i++) {
      const std::string label = concat(name, ".boxes[", i, "]");
      const auto* region = reinterpret_cast<const kosmos_region*>(at + i * size);
      KE_CHECK(region->struct_size == size, InvalidRequest, label, ".struct_size: expected ", size,
               " as in the first, got ", region->struct_size);
      out.push_back(cells_of(read_struct(region, label.c_str()), frame.width, frame.height, model_.info.location_bins,
                             label.c_str()));
    }
    return out;
  }

  const ModelObject& model_;
};

}  // namespace
}  // namespace ke::capi

using namespace ke;
using namespace ke::capi;

kosmos_status kosmos_caption(const kosmos_model* model, const kosmos_image* image, const kosmos_options* options,
                             kosmos_result** result, kosmos_error** error) noexcept {
  const Verb verb{.takes_ground = true, .takes_detailed = true};
  return about_image(model, image, options, result, error, verb,
                     [](const ModelObject& m, const ImageObject& i, const CheckedOptions& o, Frame&) {
                       return caption_prompt(m.formats, i.embedding, o.detailed, o.ground);
                     });
}

kosmos_status kosmos_ground(const kosmos_model* model, const kosmos_image* image, const char* prompt,
                            const kosmos_options* options, kosmos_result** result, kosmos_error** error) noexcept {
  return about_image(model, image, options, result, error, Verb{},
                     [&](const ModelObject& m, const ImageObject& i, const CheckedOptions&, Frame&) {
                       return ground_prompt(m.formats, i.embedding, prompt ? given_text("prompt", prompt) : "");
                     });
}

kosmos_status kosmos_locate(const kosmos_model* model, const kosmos_image* image, const char* phrase,
                            const kosmos_options* options, kosmos_result** result, kosmos_error** error) noexcept {
  return about_image(model, image, options, result, error, Verb{},
                     [&](const ModelObject& m, const ImageObject& i, CheckedOptions& o, Frame& frame) {
                       KE_CHECK(!o.request.keep_prompt, InvalidRequest, "lead_in: locate does not take it");
                       o.request.one_object = frame.expects_object = true;
                       return locate_prompt(m.formats, i.embedding, given_text("phrase", phrase));
                     });
}

kosmos_status kosmos_describe(const kosmos_model* model, const kosmos_image* image, const kosmos_region* region,
                              const kosmos_options* options, kosmos_result** result, kosmos_error** error) noexcept {
  const Verb verb{.takes_ground = true, .ground = true};
  return about_image(model, image, options, result, error, verb,
                     [&](const ModelObject& m, const ImageObject& i, const CheckedOptions& o, Frame& frame) {
                       const int64_t bins = m.info.location_bins;
                       const auto cells =
                           cells_of(required_struct(region, "region"), i.width, i.height, bins, "region");
                       frame.seen_box = box_of(cells_to_box(cells.first, cells.second, bins), cells,
                                               std::numeric_limits<double>::quiet_NaN(), i.width, i.height);
                       return describe_prompt(m.formats, i.embedding, cells, o.ground);
                     });
}

kosmos_status kosmos_ask(const kosmos_model* model, const kosmos_image* image, const char* question,
                         const kosmos_options* options, kosmos_result** result, kosmos_error** error) noexcept {
  const Verb verb{.takes_ground = true, .takes_choices = true};
  return about_image(model, image, options, result, error, verb,
                     [&](const ModelObject& m, const ImageObject& i, const CheckedOptions& o, Frame&) {
                       return ask_prompt(m.formats, i.embedding, given_text("question", question), o.ground);
                     });
}

kosmos_status kosmos_generate(const kosmos_model* model, const kosmos_segment* segments, size_t segment_count,
                              const kosmos_options* options, kosmos_result** result, kosmos_error** error) noexcept {
  return guarded_new(result, error, "result", [&] {
    const std::shared_ptr<ModelObject> m = model_of(model);
    const kosmos_options o = read_struct(options, "kosmos_options");
    CheckedOptions checked = check_options(o, Verb{.takes_choices = true, .grammar = false}, m->info);
    KE_CHECK(segments != nullptr && segment_count >= 1 && segment_count <= 4096, InvalidRequest,
             "segments: expected 1..4096, got ", segments ? concat(segment_count) : "NULL");
    const char* at = reinterpret_cast<const char*>(segments);
    const size_t size = segments->struct_size;
    SegmentReader reader(*m);
    for (size_t i = 0; i < segment_count; i++) {
      const auto* segment = reinterpret_cast<const kosmos_segment*>(at + i * size);
      KE_CHECK(segment->struct_size == size, InvalidRequest, "segments[", i, "].struct_size: expected ", size,
               " as in the first, got ", segment->struct_size);
      reader.add(read_struct(segment, "kosmos_segment"), i);
    }
    checked.request.segments = std::move(reader.segments);
    return answer(*m, o, checked.request, reader.frame);
  });
}
