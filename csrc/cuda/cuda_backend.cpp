#include "cuda/cuda_backend.h"

#include <algorithm>
#include <cstring>

#include "backend/shapes.h"
#include "cuda/kv_cache.h"

namespace ke::cuda {

namespace {

class CudaBuffer final : public Buffer {
 public:
  CudaBuffer(std::shared_ptr<BackendHandle> backend, int64_t floats)
      : backend_(std::move(backend)), memory_(static_cast<size_t>(floats) * sizeof(float)) {
    data = memory_.as<float>();
    count = floats;
  }
  ~CudaBuffer() override { backend_->flush_noexcept(); }

 private:
  std::shared_ptr<BackendHandle> backend_;
  DeviceMemory memory_;
};

constexpr int64_t kScoreStep = 256;  // positions

Matrix matrix(Mat m) { return {m.data, m.rows, m.cols, m.stride}; }
NormWeights weights(const Norm& n) {
  return {n.gamma->data, n.beta ? n.beta->data : nullptr, n.eps, n.kind == NormKind::Rms};
}
Act act_of(Activation a) { return static_cast<Act>(a); }
static_assert(static_cast<int>(Act::Silu) == static_cast<int>(Activation::Silu));
size_t row_bytes(int64_t cols) { return static_cast<size_t>(cols) * sizeof(float); }

}  // namespace

CudaBackend::CudaBackend(int device) : device_(device) {
  check(cudaSetDevice(device_), "select the device");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device_), "ask for the device's properties");
  name_ = concat(kDeviceName, ":", device_);
  description_ = concat(name_, " (", properties.name, ", ", properties.totalGlobalMem >> 20, " MiB)");
  KE_CHECK(properties.major * 10 + properties.minor >= 75, DeviceUnavailable, name_, " (", properties.name,
           ") has compute capability ", properties.major, ".", properties.minor, ", 7.5 or later is needed");
  stream_ = std::make_unique<Stream>();
  queue_ = std::make_unique<LaunchQueue>(*stream_);
  probe(properties);
}

// A launch, so that a device that cannot run these kernels says so now, while device "auto" can still give way.
void CudaBackend::probe(const cudaDeviceProp& properties) {
  DeviceMemory memory(2 * sizeof(float));
  check(cudaMemsetAsync(memory.data(), 0, memory.bytes(), *stream_), "write to the device");
  const Matrix x{memory.as<float>(), 1, 1, 1}, y{memory.as<float>() + 1, 1, 1, 1};
  const cudaError_t error = launch_add(*stream_, x, y);
  if (error != cudaSuccess && error != cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail(ErrorCode::DeviceUnavailable, name_, " (", properties.name, ", compute capability ", properties.major, ".",
         properties.minor, ") cannot run this build's kernels: ", cudaGetErrorString(error));
  }
  check(error, "start a kernel");
  check(cudaStreamSynchronize(*stream_), "run a kernel");
}

// Threads of the host each have a current device of their own.
CudaBackend::Lock CudaBackend::enter() {
  check(cudaSetDevice(device_), "select the device");
  return Lock(mutex_);
}

void BackendHandle::flush_noexcept() noexcept {
  const std::lock_guard lock(mutex_);
  if (backend_) backend_->flush_noexcept();
}

void BackendHandle::detach() noexcept {
  const std::lock_guard lock(mutex_);
  if (backend_) backend_->flush_noexcept();
  backend_ = nullptr;
}

void CudaBackend::flush() {
  positions_in_queue_ = false;
  queue_->flush();
}

void CudaBackend::flush_noexcept() noexcept {
  const std::lock_guard lock(mutex_);
  try {
    check(cudaSetDevice(device_), "select the device");
    flush();
  } catch (...) {  // deferred launches must not run on memory that is freed now; every later call says so
    queue_->fail(std::current_exception());
  }
}

void CudaBackend::grow(DeviceMemory& memory, size_t bytes) {
  if (memory.bytes() >= bytes) return;
  flush();
  memory = DeviceMemory();  // freeing waits for the work that uses it
  memory = DeviceMemory(bytes);
}

std::unique_ptr<Buffer> CudaBackend::alloc(int64_t floats) {
  KE_CHECK(floats >= 0 && floats <= int64_t{1} << 48, OutOfMemory, "not enough memory for ", floats, " floats");
  check(cudaSetDevice(device_), "select the device");
  return std::make_unique<CudaBuffer>(handle_, floats);
}

void CudaBackend::write(const float* host, Mat dst) {
  if (dst.rows == 0 || dst.cols == 0) return;
  const auto lock = enter();
  flush();
  check(cudaMemcpy2DAsync(dst.data, row_bytes(dst.stride), host, row_bytes(dst.cols), row_bytes(dst.cols), dst.rows,
                          cudaMemcpyHostToDevice, *stream_),
        "copy to the device");
  check(cudaStreamSynchronize(*stream_), "copy to the device");
}

void CudaBackend::read(Mat src, float* host) {
  if (src.rows == 0 || src.cols == 0) return;
  const auto lock = enter();
  flush();
  check(cudaMemcpy2DAsync(host, row_bytes(src.cols), src.data, row_bytes(src.stride), row_bytes(src.cols), src.rows,
                          cudaMemcpyDeviceToHost, *stream_),
        "copy from the device");
  check(cudaStreamSynchronize(*stream_), "copy from the device");
}

std::unique_ptr<Linear> CudaBackend::upload(const std::vector<Tensor>& parts, const float* bias, MatmulUse use) {
  const auto lock = enter();
  std::unique_ptr<CudaLinear> linear = upload_linear(*stream_, parts, bias, use);
  linear->before_free = [handle = handle_] { handle->flush_noexcept(); };
  return linear;
}

std::unique_ptr<KvCache> CudaBackend::alloc_kv(int layers, int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                               DType type) {
  KE_CHECK(type == DType::F32 || type == DType::F16 || type == DType::Q8_0, InvalidRequest,
           "a KV cache holds F32, F16 or Q8_0 values, not ", dtype_info(type).name);
  check(cudaSetDevice(device_), "select the device");
  const CacheType held = type == DType::F32 ? CacheType::F32 : type == DType::F16 ? CacheType::F16 : CacheType::Q8_0;
  return std::make_unique<CudaKvCache>(layers, kv_heads, head_dim, capacity, held,
                                       [handle = handle_] { handle->flush_noexcept(); });
}

void CudaBackend::reserve(KvCache& cache, int64_t capacity) {
  auto& c = static_cast<CudaKvCache&>(cache);
  if (capacity <= c.capacity) return;
  check(cudaSetDevice(device_), "select the device");
  CudaKvCache larger(c.layers, c.heads(), c.head_dim(), capacity, c.type(),
                     [handle = handle_] { handle->flush_noexcept(); });
  const auto lock = enter();  // given back before the smaller memory is
  flush();
  larger.copy_from(c, 0, c.capacity, *stream_);
  c.swap_memory(larger);
}

void CudaBackend::kv_copy(const KvCache& src, KvCache& dst, int64_t begin, int64_t end) {
  const auto& from = static_cast<const CudaKvCache&>(src);
  auto& to = static_cast<CudaKvCache&>(dst);
  KE_ASSERT(to.same_shape(from) && begin >= 0 && begin <= end && end <= from.capacity);
  reserve(to, end);
  const auto lock = enter();
  flush();
  to.copy_from(from, begin, end, *stream_);
}

Codes CudaBackend::scratch_codes(int64_t rows, int64_t blocks) {
  const size_t n = static_cast<size_t>(rows * blocks);
  grow(codes_, n * (kBlock + 16 + sizeof(float)));
  auto* base = codes_.as<int8_t>();
  return {base, reinterpret_cast<float*>(base + n * (kBlock + 16)), base + n * kBlock};
}

// Quantized segments take x in the form they need; for float ones it is normalised first, into scratch.
void CudaBackend::run_linear(const CudaLinear& w, Mat x, const Norm* norm, Mat scratch, Activation act, Mat residual,
                             Mat y) {
  KE_ASSERT(x.cols == w.in && y.cols == w.out && y.rows == x.rows);
  KE_ASSERT(!residual.data || (residual.rows == y.rows && residual.cols == y.cols));
  KE_ASSERT(!norm || (scratch.rows >= x.rows && scratch.cols == x.cols && fits(*norm, x.cols)));
  if (x.rows == 0) return;
  const auto lock = enter();
  const NormWeights norm_weights = norm ? weights(*norm) : NormWeights{};
  const Matrix normed = norm ? Matrix{scratch.data, x.rows, x.cols, scratch.stride} : matrix(x);
  bool have_normed = !norm, have_codes = false;
  Codes codes;
  for (const CudaLinear::Segment& s : w.segments) {
    Epilogue e;
    e.bias = w.bias.data() ? w.bias.as<float>() + s.first : nullptr;
    e.residual = residual.data ? residual.data + s.first : nullptr;
    e.residual_stride = residual.stride;
    e.y = y.data + s.first;
    e.y_stride = y.stride;
    e.act = act_of(act);
    if (!s.quantized) {
      if (!have_normed) add_norm(matrix(x), norm_weights, normed);
      have_normed = true;
      queue_->add("GEMM with float weights", key_of(s.floats.data, normed, e),
                  [=, w = s.floats](cudaStream_t stream) { return launch_gemm_float(stream, w, normed, e); });
    } else if (x.rows <= max_gemv_rows(s.codes.blocks)) {
      queue_->add("GEMV with quantized weights", key_of(s.codes.data, matrix(x), norm_weights, e),
                  [=, w = s.codes](cudaStream_t stream) { return launch_gemv(stream, w, matrix(x), norm_weights, e); });
    } else {
      if (!have_codes) {
        codes = scratch_codes(x.rows, s.codes.blocks);
        queue_->add("quantize activations", key_of(matrix(x), norm_weights, codes.codes),
                    [=](cudaStream_t stream) { return launch_quantize(stream, matrix(x), norm_weights, codes); });
      }
      have_codes = true;
      queue_->add("GEMM with quantized weights", key_of(s.codes.data, codes.codes, x.rows, e),
                  [=, w = s.codes](cudaStream_t stream) { return launch_gemm(stream, w, codes, x.rows, e); });
    }
  }
}

void CudaBackend::add_norm(const Matrix& x, const NormWeights& norm, const Matrix& y) {
  queue_->add("norm", key_of(x, norm, y), [=](cudaStream_t stream) { return launch_norm(stream, x, norm, y); });
}

void CudaBackend::linear(const Linear& w, Mat x, Activation act, Mat residual, Mat y) {
  run_linear(static_cast<const CudaLinear&>(w), x, nullptr, {}, act, residual, y);
}

void CudaBackend::norm_linear(Mat x, const Norm& norm, const Linear& w, Activation act, Mat residual, Mat scratch,
                              Mat y) {
  run_linear(static_cast<const CudaLinear&>(w), x, &norm, scratch, act, residual, y);
}

// All columns are computed, and the ones asked for picked: the weights' bytes are what a product costs, and those of
// single rows lie among their panel's.
void CudaBackend::norm_linear_rows(Mat x, const Norm& norm, const Linear& w, std::span<const int32_t> outputs,
                                   Mat scratch, Mat y) {
  KE_ASSERT(y.cols == static_cast<int64_t>(outputs.size()) && y.rows == x.rows);
  const auto lock = enter();
  grow(all_outputs_, row_bytes(x.rows * w.out));
  grow(columns_, outputs.size_bytes());
  const Mat all(all_outputs_.as<float>(), x.rows, w.out, w.out);
  flush();  // what reads the columns of an earlier call
  check(cudaMemcpyAsync(columns_.data(), outputs.data(), outputs.size_bytes(), cudaMemcpyHostToDevice, *stream_),
        "copy to the device");
  norm_linear(x, norm, w, Activation::None, {}, scratch, all);
  const auto* columns = columns_.as<int32_t>();
  queue_->add("pick outputs", key_of(matrix(all), columns, matrix(y)),
              [=](cudaStream_t stream) { return launch_gather_columns(stream, matrix(all), columns, matrix(y)); });
}

void CudaBackend::norm(Mat x, const Norm& norm, Mat y) {
  KE_ASSERT(x.rows == y.rows && x.cols == y.cols && fits(norm, x.cols));
  if (x.rows == 0) return;
  const auto lock = enter();
  add_norm(matrix(x), weights(norm), matrix(y));
}

void CudaBackend::l2_normalize(Mat x, float eps) {
  if (x.rows == 0) return;
  const auto lock = enter();
  queue_->add("normalise lengths", key_of(matrix(x), eps),
              [=](cudaStream_t stream) { return launch_l2_normalize(stream, matrix(x), eps); });
}

void CudaBackend::add(Mat x, Mat y) {
  KE_ASSERT(x.rows == y.rows && x.cols == y.cols);
  if (x.rows == 0) return;
  const auto lock = enter();
  queue_->add("add", key_of(matrix(x), matrix(y)),
              [=](cudaStream_t stream) { return launch_add(stream, matrix(x), matrix(y)); });
}

void CudaBackend::add_scaled(Mat x, float factor, Mat y) {
  KE_ASSERT(x.rows == y.rows && x.cols == y.cols);
  if (x.rows == 0) return;
  const auto lock = enter();
  queue_->add("add scaled", key_of(matrix(x), factor, matrix(y)),
              [=](cudaStream_t stream) { return launch_add_scaled(stream, matrix(x), factor, matrix(y)); });
}

void CudaBackend::scale(Mat x, float factor, Mat y) {
  KE_ASSERT(x.rows == y.rows && x.cols == y.cols);
  if (x.rows == 0) return;
  const auto lock = enter();
  queue_->add("scale", key_of(matrix(x), factor, matrix(y)),
              [=](cudaStream_t stream) { return launch_scale(stream, matrix(x), factor, matrix(y)); });
}

void CudaBackend::gate(Mat gate, Activation act, Mat up, Mat y) {
  KE_ASSERT(gate.rows == y.rows && gate.cols == y.cols && up.rows == y.rows && up.cols == y.cols);
  if (y.rows == 0) return;
  const auto lock = enter();
  queue_->add("gate", key_of(matrix(gate), static_cast<int64_t>(act), matrix(up), matrix(y)), [=](cudaStream_t stream) {
    return launch_gate(stream, matrix(gate), act_of(act), matrix(up), matrix(y));
  });
}

void CudaBackend::copy(Mat x, Mat y) {
  KE_ASSERT(x.rows == y.rows && x.cols == y.cols);
  if (x.rows == 0) return;
  const auto lock = enter();
  queue_->add("copy on the device", key_of(matrix(x), matrix(y)), [=](cudaStream_t stream) {
    return cudaMemcpy2DAsync(y.data, row_bytes(y.stride), x.data, row_bytes(x.stride), row_bytes(x.cols), x.rows,
                             cudaMemcpyDeviceToDevice, stream);
  });
}

static BiasTable bias_table(const RelativeBias& b) { return {b.table ? b.table->data : nullptr, b.stride, b.zero}; }

void CudaBackend::attention(Mat q, Mat k, Mat v, int64_t heads, float scale, Mat out, ScoreType,
                            const RelativeBias& bias) {
  const int64_t d = head_dim_of(q, heads);
  KE_ASSERT(k.cols % d == 0 && v.cols == k.cols && v.rows == k.rows && out.rows == q.rows && out.cols == q.cols &&
            k.rows > 0);
  head_group(heads, k.cols / d);
  const int64_t most = attention_positions(d);
  KE_CHECK(k.rows <= most, InvalidRequest, "attention over ", k.rows, " positions with heads of ", d,
           " values: a CUDA device takes at most ", most);
  if (q.rows == 0) return;
  KE_ASSERT(fits(bias, heads, q.rows - 1, k.rows - 1));
  const auto lock = enter();
  const BiasTable table = bias_table(bias);
  queue_->add("attention", key_of(matrix(q), matrix(k), matrix(v), heads, scale, table, matrix(out)),
              [=](cudaStream_t stream) {
                return launch_attention(stream, matrix(q), matrix(k), matrix(v), heads, scale, table, matrix(out));
              });
}

const DevicePosition* CudaBackend::device_positions(const std::vector<KvPosition>& positions, int64_t rows) {
  std::vector<DevicePosition> needed;
  needed.reserve(static_cast<size_t>(rows));
  for (int64_t r = 0; r < rows; r++)
    needed.push_back({static_cast<const CudaKvCache*>(positions[r].cache)->data(), positions[r].cache->capacity,
                      positions[r].pos, 0});
  const size_t bytes = needed.size() * sizeof(DevicePosition);
  if (uploaded_positions_.size() >= needed.size() && std::memcmp(uploaded_positions_.data(), needed.data(), bytes) == 0)
    return positions_.as<DevicePosition>();
  if (positions_in_queue_) flush();
  uploaded_positions_.clear();
  grow(positions_, bytes);
  check(cudaMemcpyAsync(positions_.data(), needed.data(), bytes, cudaMemcpyHostToDevice, *stream_),
        "copy to the device");
  uploaded_positions_ = std::move(needed);
  return positions_.as<DevicePosition>();
}

void CudaBackend::rope(Mat x, int64_t heads, const Rope& rope, const std::vector<KvPosition>& positions) {
  KE_ASSERT(x.cols % heads == 0 && rope.dims % 2 == 0 && rope.dims <= x.cols / heads);
  KE_ASSERT(static_cast<int64_t>(positions.size()) >= x.rows);
  for (int64_t r = 0; r < x.rows; r++)
    KE_ASSERT(positions[r].pos >= 0 && (positions[r].pos + 1) * rope.dims <= rope.table->count);
  if (x.rows == 0) return;
  const auto lock = enter();
  const DevicePosition* on_device = device_positions(positions, x.rows);
  const RopeTable table{rope.table->data, rope.dims, rope.interleaved};
  positions_in_queue_ = true;
  queue_->add("rotary positions", key_of(matrix(x), heads, table, on_device),
              [=](cudaStream_t stream) { return launch_rope(stream, matrix(x), heads, table, on_device); });
}

void CudaBackend::kv_write(Mat k, Mat v, int layer, const std::vector<KvPosition>& positions) {
  KE_ASSERT(k.rows == v.rows && k.cols == v.cols && static_cast<int64_t>(positions.size()) >= k.rows);
  for (int64_t r = 0; r < k.rows; r++) {
    const KvCache& c = *positions[r].cache;
    KE_ASSERT(layer >= 0 && layer < c.layers && c.width == k.cols && positions[r].pos >= 0 &&
              positions[r].pos < c.capacity);
  }
  if (k.rows == 0) return;
  const auto lock = enter();
  const auto& cache = static_cast<const CudaKvCache&>(*positions[0].cache);
  const DevicePosition* on_device = device_positions(positions, k.rows);
  const CacheShape shape = cache.shape(layer, 1);
  positions_in_queue_ = true;
  queue_->add("store keys and values", key_of(matrix(k), matrix(v), on_device, shape),
              [=](cudaStream_t stream) { return launch_kv_write(stream, matrix(k), matrix(v), on_device, shape); });
}

void CudaBackend::kv_attention(Mat q, int layer, int64_t heads, float scale, const std::vector<KvPosition>& positions,
                               Mat out, const RelativeBias& bias) {
  const int64_t d = head_dim_of(q, heads);
  KE_ASSERT(out.rows == q.rows && out.cols == q.cols && static_cast<int64_t>(positions.size()) >= q.rows);
  if (q.rows == 0) return;
  const auto& first = static_cast<const CudaKvCache&>(*positions[0].cache);
  const int64_t kv_heads = first.heads(), group = head_group(heads, kv_heads);
  int64_t longest = 0;
  for (int64_t r = 0; r < q.rows; r++) {
    const auto& c = static_cast<const CudaKvCache&>(*positions[r].cache);
    KE_ASSERT(layer >= 0 && layer < c.layers && c.heads() == kv_heads && c.head_dim() == d && positions[r].pos >= 0 &&
              positions[r].pos < c.capacity && c.type() == first.type());
    longest = std::max<int64_t>(longest, positions[r].pos + 1);
  }
  KE_CHECK(longest <= kMostPositions, InvalidRequest, "attention over ", longest, " positions: a CUDA device takes at ",
           "most ", kMostPositions);
  KE_ASSERT(fits(bias, heads, longest - 1, 0));
  const auto lock = enter();
  // Room for scores by whole steps, so that a pass stays the same while positions are added.
  const int64_t room = std::min(kMostPositions, (longest + kScoreStep - 1) / kScoreStep * kScoreStep);
  const DevicePosition* on_device = device_positions(positions, q.rows);
  const CacheShape shape = first.shape(layer, group);
  positions_in_queue_ = true;
  const BiasTable table = bias_table(bias);
  queue_->add("attention over the cache", key_of(matrix(q), on_device, shape, scale, room, table, matrix(out)),
              [=](cudaStream_t stream) {
                return launch_kv_attention(stream, matrix(q), on_device, shape, scale, room, table, matrix(out));
              });
}

void CudaBackend::sync() {
  const auto lock = enter();
  flush();
  check(cudaStreamSynchronize(*stream_), "wait for the device");
}

}  // namespace ke::cuda
