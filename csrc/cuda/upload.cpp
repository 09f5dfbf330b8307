#include "cuda/upload.h"

#include <algorithm>
#include <cstring>

#include "backend/shapes.h"
#include "cuda/repack.h"
#include "quant/codec.h"

namespace ke::cuda {

namespace {

constexpr size_t kPiece = 4 << 20;  // bytes repacked and copied at a time

void to_device(cudaStream_t stream, void* to, const void* from, size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "copy weights");
  check(cudaStreamSynchronize(stream), "copy weights");
}

void upload_codes(cudaStream_t stream, const Tensor& t, Format format, CudaLinear::Segment& out) {
  const int64_t blocks = t.cols() / kBlock;
  const UnitGrid grid = unit_grid(blocks);
  const size_t panel_bytes = static_cast<size_t>(grid.steps) * unit_bytes(format);
  out.quantized = true;
  out.memory = DeviceMemory(static_cast<size_t>(matrix_bytes(format, t.rows(), blocks)));
  out.codes = {format, out.memory.as<uint8_t>(), t.rows(), blocks};
  const int64_t panels = panel_count(t.rows(), blocks);
  const int64_t at_once = std::max<int64_t>(1, static_cast<int64_t>(kPiece / panel_bytes));
  std::vector<uint8_t> piece(static_cast<size_t>(std::min(at_once, panels)) * panel_bytes);
  for (int64_t p = 0; p < panels; p += at_once) {
    const int64_t n = std::min(at_once, panels - p);
    for (int64_t i = 0; i < n; i++)
      pack_panel(t, format, (p + i) * grid.rows, piece.data() + static_cast<size_t>(i) * panel_bytes);
    to_device(stream, out.memory.as<uint8_t>() + static_cast<size_t>(p) * panel_bytes, piece.data(),
              static_cast<size_t>(n) * panel_bytes);
  }
}

void upload_floats(cudaStream_t stream, const Tensor& t, CudaLinear::Segment& out) {
  const int64_t rows = t.rows(), cols = t.cols(), stride = (cols + 7) / 8 * 8;
  const bool halves = t.dtype == DType::F16 || t.dtype == DType::BF16;
  const size_t size = halves ? 2 : 4, row_bytes = static_cast<size_t>(stride) * size;
  out.memory = DeviceMemory(static_cast<size_t>(rows) * row_bytes);
  out.floats = {t.dtype == DType::F16    ? FloatType::F16
                : t.dtype == DType::BF16 ? FloatType::BF16
                                         : FloatType::F32,
                out.memory.data(), rows, cols, stride};
  const size_t from_bytes = t.bytes / static_cast<size_t>(rows);
  const int64_t at_once = std::clamp<int64_t>(static_cast<int64_t>(kPiece / row_bytes), 1, rows);
  std::vector<uint8_t> piece(static_cast<size_t>(at_once) * row_bytes);
  for (int64_t r = 0; r < rows; r += at_once) {
    const int64_t n = std::min(at_once, rows - r);
    for (int64_t i = 0; i < n; i++) {
      uint8_t* to = piece.data() + static_cast<size_t>(i) * row_bytes;
      const uint8_t* from = t.data + static_cast<size_t>(r + i) * from_bytes;
      if (halves)
        std::memcpy(to, from, static_cast<size_t>(cols) * 2);
      else
        decode(t.dtype, from, reinterpret_cast<float*>(to), cols);
      std::memset(to + static_cast<size_t>(cols) * size, 0, static_cast<size_t>(stride - cols) * size);
    }
    to_device(stream, out.memory.as<uint8_t>() + static_cast<size_t>(r) * row_bytes, piece.data(),
              static_cast<size_t>(n) * row_bytes);
  }
}

// The shape of neighbouring parts of one type, stacked.
Tensor merged(const Tensor* first, size_t count) {
  Tensor t = *first;
  for (size_t i = 1; i < count; i++) {
    t.shape[0] += first[i].shape[0];
    t.bytes += first[i].bytes;
  }
  return t;
}

}  // namespace

std::unique_ptr<CudaLinear> upload_linear(cudaStream_t stream, const std::vector<Tensor>& parts, const float* bias,
                                          MatmulUse use) {
  KE_ASSERT(!parts.empty());
  auto linear = std::make_unique<CudaLinear>();
  linear->in = parts[0].cols();
  for (const Tensor& t : parts) check_part(t, linear->in);
  for (size_t i = 0; i < parts.size();) {
    const std::optional<Format> format = format_of(parts[i].dtype, linear->in, use);
    // Parts of one type become one segment, so one launch: their bytes are put together here, if they are not already.
    size_t end = i + 1;
    while (end < parts.size() && parts[end].dtype == parts[i].dtype) end++;
    Tensor whole = merged(&parts[i], end - i);
    std::vector<uint8_t> bytes;
    if (end - i > 1) {
      bytes.reserve(whole.bytes);
      for (size_t p = i; p < end; p++) bytes.insert(bytes.end(), parts[p].data, parts[p].data + parts[p].bytes);
      whole.data = bytes.data();
    }
    CudaLinear::Segment segment;
    segment.first = linear->out;
    if (format)
      upload_codes(stream, whole, *format, segment);
    else
      upload_floats(stream, whole, segment);
    linear->out += whole.rows();
    linear->segments.push_back(std::move(segment));
    i = end;
  }
  if (bias) {
    linear->bias = DeviceMemory(static_cast<size_t>(linear->out) * sizeof(float));
    to_device(stream, linear->bias.data(), bias, linear->bias.bytes());
  }
  return linear;
}

}  // namespace ke::cuda
