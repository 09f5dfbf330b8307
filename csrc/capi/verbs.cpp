// The functions of the C interface that answer.
#include "base/limits.h"
#include "capi/request.h"
#include "tasks/plan.h"

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
    PlanSegment s;
    switch (given.kind) {
      case KOSMOS_SEGMENT_TEXT:
      case KOSMOS_SEGMENT_RAW_TEXT:
        s.kind = given.kind == KOSMOS_SEGMENT_TEXT ? PlanSegment::Kind::Text : PlanSegment::Kind::Tags;
        s.text = given_text(name.c_str(), given.text);
        break;
      case KOSMOS_SEGMENT_IMAGE: {
        const std::shared_ptr<ImageObject> image = image_of(given.image, model_, name.c_str());
        s.kind = PlanSegment::Kind::Image;
        s.place = images.size();
        images.push_back(image->embedding);
        frame.width = image->width;
        frame.height = image->height;
        break;
      }
      case KOSMOS_SEGMENT_ROWS: {
        const size_t width = static_cast<size_t>(model_.info.width);
        KE_CHECK(given.rows != nullptr && given.row_count >= 1 &&
                     given.row_count <= static_cast<size_t>(model_.info.context_length),
                 InvalidRequest, name, ".rows: expected 1..", model_.info.context_length, " rows, got ",
                 given.rows ? concat(given.row_count) : "NULL");
        s.kind = PlanSegment::Kind::Rows;
        s.place = images.size();
        images.push_back(model_.engine->given_rows({given.rows, given.rows + given.row_count * width},
                                                   static_cast<int64_t>(given.row_count), /*keep=*/false));
        break;
      }
      case KOSMOS_SEGMENT_BOXES:
        s.kind = PlanSegment::Kind::Boxes;
        s.place = boxes.size();
        boxes.push_back(cells(given, name));
        break;
      default:
        fail(ErrorCode::InvalidRequest, name, ".kind: expected KOSMOS_SEGMENT_*, got ", given.kind);
    }
    segments.push_back(std::move(s));
  }

  std::vector<PlanSegment> segments;
  std::vector<ImageHandle> images;
  std::vector<Cells> boxes;
  Frame frame;

 private:
  Cells cells(const kosmos_segment& given, const std::string& name) const {
    KE_CHECK(given.boxes != nullptr && given.box_count >= 1 && given.box_count <= limits::kMaxBoxes, InvalidRequest,
             name, ": expected 1..", limits::kMaxBoxes, " boxes, got ", given.boxes ? concat(given.box_count) : "NULL");
    KE_CHECK(model_.about().grounding, InvalidRequest, name, ": ", kNoGrounding);
    Cells out;
    for (const kosmos_region& region : read_array(given.boxes, given.box_count, name + ".boxes"))
      out.push_back(cells_of(region, frame.width, frame.height, model_.info.location_bins,
                             concat(name, ".boxes[", out.size(), "]").c_str()));
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

kosmos_status kosmos_read(const kosmos_model* model, const kosmos_image* image, const kosmos_options* options,
                          kosmos_result** result, kosmos_error** error) noexcept {
  return answer_request(model, request_of(KOSMOS_TASK_READ, image, options), result, error);
}

kosmos_status kosmos_generate(const kosmos_model* model, const kosmos_segment* segments, size_t segment_count,
                              const kosmos_options* options, kosmos_result** result, kosmos_error** error) noexcept {
  return guarded_new(result, error, "result", [&] {
    const std::shared_ptr<ModelObject> m = model_of(model);
    const kosmos_options o = read_struct(options, "kosmos_options");
    Prepared prepared{o, check_options(o, nullptr, *m), {}};
    KE_CHECK(segments != nullptr && segment_count >= 1 && segment_count <= limits::kMaxSegments, InvalidRequest,
             "segments: expected 1..", limits::kMaxSegments, ", got ", segments ? concat(segment_count) : "NULL");
    SegmentReader reader(*m);
    size_t number = 0;
    for (const kosmos_segment& segment : read_array(segments, segment_count, "segments")) reader.add(segment, number++);
    Plan plan = plan_sequence(m->about(), std::move(reader.segments));
    prepared.frame = reader.frame;
    prepared.request.segments = filled(std::move(plan.segments), reader.images, reader.boxes);
    prepared.request.notes = std::move(plan.notes);
    return answer(*m, prepared);
  });
}
