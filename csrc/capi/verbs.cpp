// The functions of the C interface that answer.
#include "capi/request.h"
#include "capi/segments.h"

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
    Sequence sequence = read_sequence(*m, segments, segment_count);
    prepared.frame = sequence.frame;
    prepared.request.segments = std::move(sequence.segments);
    prepared.request.notes = std::move(sequence.notes);
    return answer(*m, prepared);
  });
}
