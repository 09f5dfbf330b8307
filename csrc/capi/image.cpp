// Pictures of the C interface: pixels in the layouts of desktop toolkits -> encoded images.
#include "image/image.h"

#include <iterator>

#include "capi/objects.h"

namespace ke::capi {
namespace {

struct Layout {
  int32_t bytes;             // per pixel
  int32_t red, green, blue;  // their places in it
};
constexpr Layout kLayouts[] = {
    {3, 0, 1, 2}, {3, 2, 1, 0}, {4, 0, 1, 2}, {4, 2, 1, 0}, {1, 0, 0, 0}};  // KOSMOS_PIXELS_*

// Calls use(view) with the picture as contiguous RGB, which is copied only where it has another layout.
template <class Use>
auto with_rgb(const kosmos_picture& p, Use&& use) {
  check_image_size(p.width, p.height, "picture");
  KE_CHECK(p.pixels != nullptr, InvalidRequest, "picture: pixels is NULL");
  KE_CHECK(p.format >= 0 && p.format < static_cast<int32_t>(std::size(kLayouts)), InvalidRequest,
           "picture: format must be KOSMOS_PIXELS_*, 0..", std::size(kLayouts) - 1, ", got ", p.format);
  const Layout& layout = kLayouts[p.format];
  const ptrdiff_t row_bytes = ptrdiff_t{p.width} * layout.bytes;
  const ptrdiff_t stride = p.stride == 0 ? row_bytes : p.stride;
  constexpr ptrdiff_t kMost = PTRDIFF_MAX / 65536;
  KE_CHECK((stride >= row_bytes || stride <= -row_bytes) && stride <= kMost && stride >= -kMost, InvalidRequest,
           "picture: a row of ", p.width, " pixels has ", row_bytes, " bytes, the stride is ", stride);
  if (stride == row_bytes && p.format == KOSMOS_PIXELS_RGB) return use(ImageView{p.pixels, p.width, p.height});

  std::vector<uint8_t> rgb(static_cast<size_t>(p.width) * static_cast<size_t>(p.height) * 3);
  uint8_t* out = rgb.data();
  for (int32_t y = 0; y < p.height; y++) {
    const uint8_t* in = p.pixels + y * stride;
    for (int32_t x = 0; x < p.width; x++, in += layout.bytes) {
      *out++ = in[layout.red];
      *out++ = in[layout.green];
      *out++ = in[layout.blue];
    }
  }
  return use(ImageView{rgb.data(), p.width, p.height});
}

}  // namespace

std::shared_ptr<ImageObject> image_of(const kosmos_image* handle, const ModelObject& model, const char* name) {
  std::shared_ptr<ImageObject> image = object_of<ImageObject>(handle, name);
  KE_CHECK(image->engine.lock() == model.engine, InvalidRequest, name,
           ": an encoded image can be used only with the model that encoded it");
  return image;
}

}  // namespace ke::capi

using namespace ke;
using namespace ke::capi;

kosmos_status kosmos_image_encode(const kosmos_model* model, const kosmos_picture* picture,
                                  const kosmos_encode_options* options, kosmos_image** image,
                                  kosmos_error** error) noexcept {
  return guarded_new(image, error, "image", [&] {
    const std::shared_ptr<ModelObject> m = model_of(model);
    const kosmos_picture p = required_struct(picture, "kosmos_picture");
    const kosmos_encode_options o = read_struct(options, "kosmos_encode_options");
    const CallCancel cancel(o.cancel, o.on_abort, o.user);
    const bool keep = switched("keep", o.keep, true);
    cancel.token.check();
    auto object = std::make_shared<ImageObject>();
    object->embedding =
        with_rgb(p, [&](const ImageView& view) { return m->engine->encode_image(view, &cancel.token, keep); });
    object->engine = m->engine;
    object->width = p.width;
    object->height = p.height;
    m->log(KOSMOS_LOG_DEBUG, "encoded a picture of ", p.width, " x ", p.height, " in ", object->embedding->encode_ms,
           " ms");
    return insert_handle(Kind::Image, std::move(object));
  });
}

kosmos_status kosmos_image_get(const kosmos_image* image, kosmos_image_info* info, kosmos_error** error) noexcept {
  return guarded(error, [&] {
    const std::shared_ptr<ImageObject> i = object_of<ImageObject>(image, "image");
    kosmos_image_info out{};
    out.width = i->width;
    out.height = i->height;
    out.encode_ms = i->embedding->encode_ms;
    write_struct(out, info, "kosmos_image_info");
  });
}

void kosmos_image_free(kosmos_image* image) noexcept { take_handle(image, Kind::Image); }
