// _core.resize_bicubic and _core.to_patches: image/image.h for Python.
#include "bindings/bind_common.h"
#include <nanobind/stl/array.h>

#include "image/image.h"

namespace ke {

// Of packed RGB; the view's bytes must outlive it.
static ImageView image_of(const BufferView& view, int64_t width, int64_t height) {
  check_image_size(width, height, "a picture");
  const size_t expected = static_cast<size_t>(width * height * 3);
  KE_CHECK(view.bytes().size() == expected, InvalidRequest, "a picture of ", width, " x ", height, " pixels has ",
           expected, " bytes of RGB, not ", view.bytes().size());
  return {view.bytes().data(), width, height};
}

static nb::bytes resize_bytes(const BufferArg& rgb, int64_t width, int64_t height, int64_t out_width,
                              int64_t out_height, const CancelToken* cancel) {
  const BufferView view(rgb);
  const ImageView image = image_of(view, width, height);
  std::vector<uint8_t> out;
  {
    nb::gil_scoped_release release;
    out = resize_bicubic(image, out_width, out_height, cancel);
  }
  return nb::bytes(out.data(), out.size());
}

static nb::bytes fit_bytes(const BufferArg& rgb, int64_t width, int64_t height, int64_t size, std::string_view fit,
                           const std::array<uint8_t, 3>& colour) {
  const BufferView view(rgb);
  const Fit kind = fit == "pad" ? Fit::Pad : fit == "crop" ? Fit::Crop : Fit::Squash;
  const std::vector<uint8_t> out = fit_square(image_of(view, width, height), size, kind, colour);
  return nb::bytes(out.data(), out.size());
}

static nb::bytes patch_bytes(const BufferArg& rgb, int64_t size, int64_t patch, const std::array<float, 3>& mean,
                             const std::array<float, 3>& std) {
  const BufferView view(rgb);
  const std::vector<float> out =
      to_patches(std::vector<uint8_t>(view.bytes().begin(), view.bytes().end()), size, patch, mean, std);
  return nb::bytes(out.data(), out.size() * sizeof(float));
}

static std::tuple<int64_t, int64_t, nb::bytes> patch_grid(const BufferArg& rgb, int64_t width, int64_t height,
                                                          int64_t patch, int64_t max_patches) {
  const BufferView view(rgb);
  const ImageView image = image_of(view, width, height);
  const PatchGridSize size = patch_grid_size(width, height, patch, max_patches);
  const std::vector<float> out = to_patch_grid(image, patch, size);
  return {size.rows, size.cols, nb::bytes(out.data(), out.size() * sizeof(float))};
}

void bind_image(nb::module_& m) {
  m.def("resize_bicubic", &resize_bytes, nb::arg("rgb"), nb::arg("width"), nb::arg("height"), nb::arg("out_width"),
        nb::arg("out_height"), nb::arg("cancel").none() = nb::none(),
        "PIL's antialiased bicubic resize of packed RGB bytes (height * width * 3), bit for bit; both sides 1..65535, "
        "at\n"
        "most 2**28 pixels. Returns out_height * out_width * 3 bytes. Raises InvalidRequest, Cancelled.");
  m.def("to_patches", &patch_bytes, nb::arg("rgb"), nb::arg("size"), nb::arg("patch"), nb::arg("mean"), nb::arg("std"),
        "size * size * 3 RGB bytes -> float32 bytes of shape ((size // patch)**2, 3 * patch * patch), columns in the "
        "order\n"
        "channel, y, x; value = (byte / 255 - mean) / std. Raises InvalidRequest.");
  nb::borrow<nb::module_>(m.attr("testing"))
      .def("fit_square", &fit_bytes, nb::arg("rgb"), nb::arg("width"), nb::arg("height"), nb::arg("size"),
           nb::arg("fit"), nb::arg("colour"))
      .def("patch_grid", &patch_grid, nb::arg("rgb"), nb::arg("width"), nb::arg("height"), nb::arg("patch"),
           nb::arg("max_patches"));
}

}  // namespace ke
