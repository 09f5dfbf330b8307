#include "capi/segments.h"

#include "base/limits.h"
#include "tasks/plan.h"

namespace ke::capi {
namespace {

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

Sequence read_sequence(const ModelObject& model, const kosmos_segment* segments, size_t count) {
  KE_CHECK(segments != nullptr && count >= 1 && count <= limits::kMaxSegments, InvalidRequest, "segments: expected 1..",
           limits::kMaxSegments, ", got ", segments ? concat(count) : "NULL");
  SegmentReader reader(model);
  size_t number = 0;
  for (const kosmos_segment& segment : read_array(segments, count, "segments")) reader.add(segment, number++);
  Plan plan = plan_sequence(model.about(), std::move(reader.segments));
  return {filled(std::move(plan.segments), reader.images, reader.boxes), reader.frame, std::move(plan.notes)};
}

}  // namespace ke::capi
