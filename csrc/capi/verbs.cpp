// The functions of the C interface that answer.
#include "base/limits.h"
#include "capi/request.h"
#include "tasks/trained.h"

namespace ke::capi {
namespace {

kosmos_request request_of(int32_t task, const kosmos_image* image, const kosmos_options* options) {
  kosmos_request r{};
  r.struct_size = sizeof(r);
  r.task = task;
  r.image = image;
  r.options = options;
  return r;
}

kosmos_status answer_request(const kosmos_model* model, const kosmos_request& request, kosmos_result** result,
                             kosmos_error** error) noexcept {
  return guarded_new(result, error, "result", [&] {
    const std::shared_ptr<ModelObject> m = model_of(model);
    return answer(*m, prepare(*m, request));
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
    KE_CHECK(given.boxes != nullptr && given.box_count >= 1 && given.box_count <= limits::kMaxBoxes, InvalidRequest,
             name, ": expected 1..", limits::kMaxBoxes, " boxes, got ", given.boxes ? concat(given.box_count) : "NULL");
    KE_CHECK(model_.about().grounding, InvalidRequest, name, ": ", kNoGrounding);
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

// A picture with the words of another verb, or a question alone, is that verb's kind of request.
std::string_view kind_of(const ModelObject& m, const std::vector<Segment>& segments) {
  const auto is_text = [](const Segment& s) { return s.kind == Segment::Kind::Text || s.kind == Segment::Kind::Tags; };
  const bool picture = segments.size() == 2 && segments[0].kind == Segment::Kind::Image;
  std::string_view kind;
  if ((picture || segments.size() == 1) && is_text(segments.back()))
    kind = kind_of_words(m.about().prompts, segments.back().text, picture);
  return kind.empty() ? "generate" : kind;
}

}  // namespace
}  // namespace ke::capi

using namespace ke;
using namespace ke::capi;

kosmos_status kosmos_caption(const kosmos_model* model, const kosmos_image* image, const kosmos_options* options,
                             kosmos_result** result, kosmos_error** error) noexcept {
  return answer_request(model, request_of(KOSMOS_TASK_CAPTION, image, options), result, error);
}

kosmos_status kosmos_ground(const kosmos_model* model, const kosmos_image* image, const char* prompt,
                            const kosmos_options* options, kosmos_result** result, kosmos_error** error) noexcept {
  kosmos_request r = request_of(KOSMOS_TASK_GROUND, image, options);
  r.text = prompt;
  return answer_request(model, r, result, error);
}

kosmos_status kosmos_locate(const kosmos_model* model, const kosmos_image* image, const char* phrase,
                            const kosmos_options* options, kosmos_result** result, kosmos_error** error) noexcept {
  kosmos_request r = request_of(KOSMOS_TASK_LOCATE, image, options);
  r.text = phrase;
  return answer_request(model, r, result, error);
}

kosmos_status kosmos_describe(const kosmos_model* model, const kosmos_image* image, const kosmos_region* region,
                              const kosmos_options* options, kosmos_result** result, kosmos_error** error) noexcept {
  kosmos_request r = request_of(KOSMOS_TASK_DESCRIBE, image, options);
  r.region = region;
  return answer_request(model, r, result, error);
}

kosmos_status kosmos_ask(const kosmos_model* model, const kosmos_image* image, const char* question,
                         const kosmos_options* options, kosmos_result** result, kosmos_error** error) noexcept {
  kosmos_request r = request_of(KOSMOS_TASK_ASK, image, options);
  r.text = question;
  return answer_request(model, r, result, error);
}

kosmos_status kosmos_generate(const kosmos_model* model, const kosmos_segment* segments, size_t segment_count,
                              const kosmos_options* options, kosmos_result** result, kosmos_error** error) noexcept {
  return guarded_new(result, error, "result", [&] {
    const std::shared_ptr<ModelObject> m = model_of(model);
    const kosmos_options o = read_struct(options, "kosmos_options");
    CheckedOptions checked = check_options(o, Verb{.takes_choices = true, .grammar = false}, *m);
    KE_CHECK(segments != nullptr && segment_count >= 1 && segment_count <= limits::kMaxSegments, InvalidRequest,
             "segments: expected 1..", limits::kMaxSegments, ", got ", segments ? concat(segment_count) : "NULL");
    const char* at = reinterpret_cast<const char*>(segments);
    const size_t size = segments->struct_size;
    SegmentReader reader(*m);
    for (size_t i = 0; i < segment_count; i++) {
      const auto* segment = reinterpret_cast<const kosmos_segment*>(at + i * size);
      KE_CHECK(segment->struct_size == size, InvalidRequest, "segments[", i, "].struct_size: expected ", size,
               " as in the first, got ", segment->struct_size);
      reader.add(read_struct(segment, "kosmos_segment"), i);
    }
    reader.frame.untrained = note_untrained(*m, {kind_of(*m, reader.segments)});
    Prepared prepared{o, std::move(checked.request), reader.frame};
    prepared.request.segments = std::move(reader.segments);
    return answer(*m, prepared);
  });
}
